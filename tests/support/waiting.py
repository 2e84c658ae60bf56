"""Waits for conditions, never for times."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

POLL_S = 0.02


def wait_until(predicate: Callable[[], object], limit_s: float, *, what: str = "") -> None:
    """Returns once the predicate holds; fails the test at the limit."""
    deadline = time.perf_counter() + limit_s
    while not predicate():
        assert time.perf_counter() < deadline, f"not within {limit_s:g} s: {what or predicate}"
        time.sleep(POLL_S)


async def wait_until_async(
    predicate: Callable[[], object], limit_s: float, *, what: str = ""
) -> None:
    """As `wait_until`, with the event loop free meanwhile."""
    deadline = time.perf_counter() + limit_s
    while not predicate():
        assert time.perf_counter() < deadline, f"not within {limit_s:g} s: {what or predicate}"
        await asyncio.sleep(POLL_S)


def unused_ports(count: int) -> list[int]:
    """Loopback ports that are free now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
