"""Clients that send too much, too little or nothing, take nothing, or leave."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from fake_sessions import MODEL
from http_door import LIMIT_S, check_error, exchange, get, open_door, post, raw_client

from readahead.core.request import FinishReason
from readahead.router.config import DoorsConfig
from readahead.router.http.connection import HEAD_BYTES_MAX, Connection

COMPLETIONS = "/v1/completions"
ASK: dict[str, Any] = {"model": MODEL, "prompt": "hi"}


def chunked(size_bytes: int, chunk_bytes: int = 4096) -> bytes:
    chunk = b"%x\r\n%b\r\n" % (chunk_bytes, b" " * chunk_bytes)
    return chunk * (size_bytes // chunk_bytes)


SMALL = DoorsConfig(http_port=0, body_bytes_max=64 << 10, client_stall_s_max=0.3)
CHUNKED_HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


async def test_oversized_body_with_length() -> None:
    """A body that says it is too large is refused, and the client gets to read that."""
    async with open_door(doors=SMALL) as door:
        answer = await exchange(door, post(COMPLETIONS, b" " * (1 << 20)))
    check_error(answer, 413)
    assert answer.headers["connection"] == "close"


async def test_oversized_body_in_chunks() -> None:
    """A body without a length is counted as it comes."""
    async with open_door(doors=SMALL) as door, raw_client(door) as client:
        await client.send(CHUNKED_HEAD + chunked(1 << 20) + b"0\r\n\r\n")
        check_error(await client.answer(), 413)


async def test_oversized_body_is_refused_before_it_is_sent() -> None:
    """A client that asks first is told before it sends anything."""
    async with open_door(doors=SMALL) as door, raw_client(door) as client:
        request = post(COMPLETIONS, b" " * (1 << 20), "expect: 100-continue")
        await client.send(request.split(b"\r\n\r\n")[0] + b"\r\n\r\n")
        check_error(await client.answer(), 413)


async def test_body_in_chunks() -> None:
    """A chunked body within the limit is an ordinary one."""
    async with open_door() as door, raw_client(door) as client:
        body = json.dumps(ASK).encode()
        await client.send(CHUNKED_HEAD)
        for byte in body:
            await client.send(b"1\r\n%c\r\n" % byte)
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_body_that_stalls() -> None:
    """A body that does not come is given up."""
    async with open_door(doors=SMALL) as door, raw_client(door) as client:
        await client.send(post(COMPLETIONS, ASK)[:-3])
        check_error(await client.answer(), 408)


async def test_head_that_stalls() -> None:
    """A connection that says nothing, or half a head, is closed."""
    async with open_door(doors=SMALL) as door:
        for start in (b"", b"POST /v1/completions HTTP/1.1\r\nhost:"):
            async with raw_client(door) as client, asyncio.timeout(LIMIT_S):
                await client.send(start)
                assert await client.reader.read() == b""


async def test_head_that_is_too_large() -> None:
    """Headers are bounded."""
    async with open_door() as door, raw_client(door) as client:
        await client.send(b"GET /health HTTP/1.1\r\nx: " + b"y" * 2 * HEAD_BYTES_MAX)
        answer = await client.answer()
    assert answer.status == 400
    assert answer.error()["code"] == "invalid_request"


async def test_not_http() -> None:
    """What is not HTTP gets an error object and is closed."""
    async with open_door() as door:
        answer = await exchange(door, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.status == 400
    assert answer.error()["type"] == "invalid_request_error"


@pytest.mark.parametrize("is_stream", [False, True])
async def test_client_vanishes_while_queued(is_stream: bool) -> None:
    """A client that leaves before any text has its request ended."""
    async with open_door() as door, raw_client(door) as client:
        door.sessions.script = ()
        await client.send(post(COMPLETIONS, ASK | {"stream": is_stream}))
        async with asyncio.timeout(LIMIT_S):
            session = await door.sessions.wait_opened()
            client.vanish()
            await session.cancelled.wait()


async def test_client_vanishes_in_midstream() -> None:
    """A client that leaves between two frames has its request ended."""
    async with open_door() as door, raw_client(door) as client:
        door.sessions.script = ("one",)
        await client.send(post(COMPLETIONS, ASK | {"stream": True}))
        async with asyncio.timeout(LIMIT_S):
            await client.reader.readuntil(b"one")
            client.vanish()
            await door.sessions.last.cancelled.wait()


async def test_client_half_closes() -> None:
    """A client that closes its side is taken to have left."""
    async with open_door() as door, raw_client(door) as client:
        door.sessions.script = ()
        await client.send(post(COMPLETIONS, ASK))
        async with asyncio.timeout(LIMIT_S):
            session = await door.sessions.wait_opened()
            client.writer.write_eof()
            await session.cancelled.wait()


async def test_client_vanishes_while_its_call_is_admitted() -> None:
    """Leaving while `open` waits cancels that wait; no session is left behind."""
    async with open_door() as door, raw_client(door) as client:
        gate = door.sessions.gate = asyncio.Event()
        await client.send(post(COMPLETIONS, ASK))
        async with asyncio.timeout(LIMIT_S):
            await door.sessions.wait_called()
            client.vanish()
            # The next client is served, so the first one's wait does not hold anything.
            door.sessions.gate = None
            assert (await exchange(door, post(COMPLETIONS, ASK))).status == 200
        gate.set()
        assert len(door.sessions.opened) == 1


async def test_client_vanishes_in_its_body() -> None:
    """Half a body is nothing."""
    async with open_door() as door:
        async with raw_client(door) as client:
            await client.send(post(COMPLETIONS, ASK)[:-3])
            client.vanish()
        assert (await get(door, "/health")).status == 200
        assert door.sessions.calls == 0


async def test_client_never_reads() -> None:
    """A client that takes nothing is cancelled and its connection closed."""
    async with open_door(doors=SMALL) as door:
        door.sessions.script = ("x" * 100_000,) * 200
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", door.port))
        with sock:
            await loop.sock_sendall(sock, post(COMPLETIONS, ASK | {"stream": True}))
            async with asyncio.timeout(LIMIT_S):
                session = await door.sessions.wait_opened()
                await session.cancelled.wait()
                received = b""
                while part := await loop.sock_recv(sock, 1 << 16):
                    received = part
                assert b"[DONE]" not in received


async def test_slow_client_is_not_stalled() -> None:
    """A client that reads now and then, each time within the limit, gets everything."""
    async with open_door(doors=SMALL) as door, raw_client(door) as client:
        door.sessions.script = ("x" * 10_000,) * 200 + (FinishReason.STOP,)
        await client.send(post(COMPLETIONS, ASK | {"stream": True}))
        answer = await client.answer()
        assert answer.body.endswith(b"[DONE]\n\n")
        assert door.sessions.last.output_tokens == 200


async def test_nodelay_is_set(door_sockets: list[socket.socket]) -> None:
    """Small frames are not held back by Nagle's algorithm, and dead peers are given up."""
    async with open_door() as door, raw_client(door) as client:
        await client.send(post(COMPLETIONS, ASK))
        await client.answer()
        (sock,) = door_sockets
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


@pytest.fixture
def door_sockets(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """Sockets of the connections that the door accepts."""
    sockets: list[socket.socket] = []
    made = Connection.connection_made

    def connection_made(self: Connection, transport: asyncio.Transport) -> None:
        sockets.append(transport.get_extra_info("socket"))
        made(self, transport)

    monkeypatch.setattr(Connection, "connection_made", connection_made)
    return sockets
