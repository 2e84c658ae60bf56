"""StallWatch: gives up writes that are blocked for too long, and only those."""

from __future__ import annotations

import asyncio

from readahead.router.stalls import StallWatch


async def test_only_a_blocked_write_is_given_up() -> None:
    """Waiting for tokens is no stall; a write within the limit is none either."""
    now = 0.0
    watch = StallWatch(10.0, now=lambda: now)
    never = asyncio.Event()
    outcomes: list[str] = []

    async def client(*, is_writing: bool) -> None:
        with watch.watched() as write:
            await write(asyncio.sleep(0))
            try:
                if is_writing:
                    await write(_wait(never))
                else:
                    await never.wait()
            except asyncio.CancelledError:
                outcomes.append("writing" if is_writing else "waiting")
                raise

    async with asyncio.TaskGroup() as tasks:
        writing = tasks.create_task(client(is_writing=True))
        waiting = tasks.create_task(client(is_writing=False))
        for _ in range(3):
            await asyncio.sleep(0)
        now = 9.0
        watch.look()
        await asyncio.sleep(0)
        assert not writing.done()
        now = 10.0
        watch.look()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert writing.cancelled()
        assert not waiting.done()
        never.set()
    assert outcomes == ["writing"]


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
