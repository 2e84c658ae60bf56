"""Signals become an event; a second one ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from readahead.runtime.shutdown import SIGNALS, stop_signal

STUBBORN = """
import asyncio
from readahead.runtime.shutdown import stop_signal

async def main():
    async with stop_signal() as stop:
        print("ready", flush=True)
        await stop.wait()
        print("stopping", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_signal_sets_the_event(number: signal.Signals) -> None:
    """SIGTERM and SIGINT alike."""
    async with stop_signal() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        async with asyncio.timeout(5):
            await stop.wait()


async def test_the_handling_of_before_returns() -> None:
    """Outside the block signals do what they did."""
    before = [signal.getsignal(number) for number in SIGNALS]
    async with stop_signal():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    """However long the drain would take; the parent sees which signal it was."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
