"""Asks a process over HTTP whether it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

PROBE_S_MAX: Final = 2.0
POLL_S: Final = 0.05
"""Far below what starting takes; a probe costs a process under 1 ms."""


async def http_get(port: int, path: str) -> tuple[int, bytes]:
    """Status and body from a loopback server; status 0 iff it does not answer."""
    with suppress(OSError, TimeoutError, ValueError, IndexError):
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                await writer.drain()
                answer = await reader.read(1 << 20)
                while more := await reader.read(1 << 20):
                    answer += more
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(maxsplit=2)[1]), body
    return 0, b""


async def wait_status(port: int, path: str, *, status: int = 200) -> None:
    """Returns once the server answers with this status; asks again and again until then."""

    async def has_status() -> bool:
        answered, _ = await http_get(port, path)
        return answered == status

    await wait_true(has_status)


async def wait_true(condition: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the condition holds."""
    while not await condition():  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(POLL_S)


async def redis_answers(port: int) -> bool:
    """Whether a redis-server answers PING."""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"PING\r\n")
                await writer.drain()
                return await reader.readline() == b"+PONG\r\n"
            finally:
                writer.close()
    return False
