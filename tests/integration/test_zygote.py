"""The zygote with emulated workers: its protocol and its ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from vllm_process import is_alive, wait_until


class ZygoteProcess:
    """A running zygote and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.folder = folder

    def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")

    async def event(self) -> dict[str, object]:
        assert self.process.stdout is not None
        event: dict[str, object] = json.loads(await self.process.stdout.readline())
        return event

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    async def forked(self, name: str) -> int:
        """Has a worker forked and waits until it serves."""
        config = {"role": "decode", "engine": {"kind": "emulated", "model_name": "m"}}
        order = {"name": name, "log": str(self.log(name)), "config": config}
        self.write(json.dumps(order).encode())
        event = await self.event()
        assert (event["event"], event["name"]) == ("forked", name)

        async def serves() -> bool:
            return self.log(name).exists() and "worker_started" in self.log(name).read_text()

        await wait_until(serves, limit_s=30)
        return int(str(event["pid"]))


@pytest.fixture
async def zygote(tmp_path: Path) -> AsyncIterator[ZygoteProcess]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "readahead.services.zygote",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    yield ZygoteProcess(process, tmp_path)
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("how", ["terminate", "end of stdin"])
async def test_stopped_zygote_drains_its_workers(zygote: ZygoteProcess, how: str) -> None:
    """Each worker ends well and is told of, then the zygote; vLLM is never imported."""
    workers = {await zygote.forked("decode-0"), await zygote.forked("decode-1")}
    if how == "terminate":
        zygote.process.terminate()
    else:
        assert zygote.process.stdin is not None
        zygote.process.stdin.close()
    ended = [await zygote.event(), await zygote.event()]
    assert {event["pid"] for event in ended} == workers
    assert all((event["event"], event["status"]) == ("exited", 0) for event in ended)
    assert await zygote.process.wait() == 0
    assert "worker_stopped" in zygote.log("decode-0").read_text()


async def test_workers_die_with_a_killed_zygote(zygote: ZygoteProcess) -> None:
    """Even when nobody can tell them."""
    worker = await zygote.forked("decode-0")
    zygote.process.kill()

    async def is_gone() -> bool:
        return not is_alive(worker)

    await wait_until(is_gone, limit_s=5)


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"name": "x"}',
        b'{"name": "x", "log": "x.log", "config": {"role": "cook"}}',
        b'{"name": "x", "log": "x.log", "config": {"role": "decode", "engine": {"kind": "abc"}}}',
    ],
)
async def test_wrong_line_is_refused_and_the_next_one_served(
    zygote: ZygoteProcess, line: bytes
) -> None:
    """A supervisor's mistake is named, and costs no other worker anything."""
    zygote.write(line)
    event = await zygote.event()
    assert event["event"] == "refused"
    assert event["error"]
    await zygote.forked("decode-0")


async def test_dead_worker_is_told_of(zygote: ZygoteProcess) -> None:
    """With the signal that killed it; the others live on."""
    first = await zygote.forked("decode-0")
    second = await zygote.forked("decode-1")
    os.kill(first, signal.SIGKILL)
    event = await zygote.event()
    assert (event["event"], event["pid"], event["status"]) == ("exited", first, -signal.SIGKILL)
    assert is_alive(second)
