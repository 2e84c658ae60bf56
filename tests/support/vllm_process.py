"""What tests of real engines share: waiting, and looking at processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from readahead.runtime.clock import monotonic_s


async def wait_until(is_so: Callable[[], Awaitable[bool]], *, limit_s: float) -> None:
    """Returns once the condition, which takes a look at another process, holds."""
    deadline = monotonic_s() + limit_s
    while not await is_so():
        assert monotonic_s() < deadline, f"not within {limit_s:g} s: {is_so}"
        await asyncio.sleep(0.005)


def children(pid: int) -> dict[int, str]:
    """Command lines of a process's living children, by process id."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, parent = status[status.rindex(")") + 2 :].split()[:2]
        if int(parent) == pid and state != "Z":
            found[int(folder.name)] = command
    return found


def engine_cores(pid: int) -> list[int]:
    """Process ids of a process's engine cores."""
    return [child for child, command in children(pid).items() if "EngineCore" in command]


async def wait_no_cores(pid: int) -> None:
    """Returns once a process has no engine core: one that was killed takes a moment to go."""

    async def are_gone() -> bool:
        return not engine_cores(pid)

    await wait_until(are_gone, limit_s=5)


def is_alive(pid: int) -> bool:
    """Iff the process exists and is not merely waiting to be reaped."""
    try:
        status = (Path("/proc") / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status[status.rindex(")") + 2] != "Z"
