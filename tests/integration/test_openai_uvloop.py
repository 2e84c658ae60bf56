"""The HTTP door on uvloop, whose transports are not asyncio's: what depends on them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

import pytest
from fake_sessions import MODEL
from http_door import LIMIT_S, exchange, open_door, post, raw_client

from readahead.core.request import FinishReason
from readahead.router.config import DoorsConfig
from readahead.router.http.connection import Connection

uvloop = pytest.importorskip("uvloop")

PATH = "/v1/completions"
ASK: dict[str, Any] = {"model": MODEL, "prompt": "hi", "stream": True}


def run(test: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test)


def test_uvloop_stream() -> None:
    """A stream comes whole."""

    async def test() -> None:
        async with open_door() as door:
            answer = await exchange(door, post(PATH, ASK))
        assert answer.body.endswith(b"data: [DONE]\n\n")

    run(test())


def test_uvloop_client_vanishes() -> None:
    """A client that leaves has its request ended."""

    async def test() -> None:
        async with open_door() as door, raw_client(door) as client:
            door.sessions.script = ("one",)
            await client.send(post(PATH, ASK))
            async with asyncio.timeout(LIMIT_S):
                await client.reader.readuntil(b"one")
                client.vanish()
                await door.sessions.last.cancelled.wait()

    run(test())


def test_uvloop_client_never_reads() -> None:
    """A client that takes nothing is cancelled and its connection closed."""

    async def test() -> None:
        doors = DoorsConfig(http_port=0, client_stall_s_max=0.3)
        async with open_door(doors=doors) as door:
            door.sessions.script = ("x" * 100_000,) * 200
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", door.port))
                await loop.sock_sendall(sock, post(PATH, ASK))
                async with asyncio.timeout(LIMIT_S):
                    session = await door.sessions.wait_opened()
                    await session.cancelled.wait()
                    while await loop.sock_recv(sock, 1 << 16):
                        pass

    run(test())


def test_uvloop_nodelay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small frames are not held back by Nagle's algorithm."""
    is_nodelay: list[int] = []
    made = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.Transport) -> None:
        made(self, transport)
        number = transport.get_extra_info("socket").fileno()
        with socket.socket(fileno=number) as sock:
            is_nodelay.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            sock.detach()

    monkeypatch.setattr(Connection, "connection_made", connection_made)

    async def test() -> None:
        async with open_door() as door:
            door.sessions.script = ("one", FinishReason.STOP)
            await exchange(door, post(PATH, ASK))

    run(test())
    assert is_nodelay == [1]
