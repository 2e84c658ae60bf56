"""Calls of our own beside gRPC's client, at the same servers: the same messages, the same ends."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from fake_inference import LIMIT_S

from readahead.loadgen.grpc_channel import Channel, timeout_text
from readahead.loadgen.grpc_status import CallFailedError

METHOD = "/test.Service/Stream"
Handler = Callable[[bytes, Any], AsyncIterator[bytes]]


@asynccontextmanager
async def serving_bytes(handler: Handler, **options: int) -> AsyncIterator[str]:
    """A server of gRPC's own with one method, whose messages are bytes."""
    server = grpc.aio.server(options=[(f"grpc.{name}", value) for name, value in options.items()])
    method: grpc.RpcMethodHandler[Any, Any] = grpc.unary_stream_rpc_method_handler(handler)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Service", {"Stream": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(grace=None)


async def taken_by(channel: Channel, request: bytes, *, timeout_s: float = LIMIT_S) -> list[bytes]:
    """All messages of an answer."""
    taken: list[bytes] = []

    def take(message: bytes, _: float) -> bool:
        taken.append(message)
        return False

    await channel.call(METHOD, request, take, timeout_s=timeout_s)
    return taken


async def random_messages(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """From a few bytes to many frames' worth, as the request's number says."""
    rng = random.Random(int(request))
    for _ in range(rng.randrange(12)):
        yield rng.randbytes(rng.choice([0, 1, 30, 16384, 200_000]))


def test_the_messages_are_those_that_grpc_has() -> None:
    """Many answers at once, over one connection."""

    async def run() -> None:
        async with (
            serving_bytes(random_messages) as address,
            grpc.aio.insecure_channel(address) as theirs,
        ):
            ours = Channel(address)
            call: Any = theirs.unary_stream(METHOD)
            requests = [str(seed).encode() for seed in range(40)]
            expected = [[message async for message in call(request)] for request in requests]
            got = await asyncio.gather(*(taken_by(ours, request) for request in requests))
            assert got == expected
            ours.close()

    asyncio.run(run())


def test_a_long_request_arrives_whole() -> None:
    """It waits for the server's windows."""

    async def echo(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield request

    async def run() -> None:
        async with serving_bytes(echo) as address:
            channel, request = Channel(address), random.Random(5).randbytes(3_000_000)
            assert await taken_by(channel, request) == [request]
            channel.close()

    asyncio.run(run())


def test_a_full_connection_is_joined_by_another() -> None:
    """Ten calls that end only once all have begun, at a server that takes four per connection."""

    async def run() -> None:
        begun, all_begun, peers = 0, asyncio.Event(), set()

        async def meet(request: bytes, context: Any) -> AsyncIterator[bytes]:
            nonlocal begun
            begun += 1
            peers.add(context.peer())
            if begun == 10:
                all_begun.set()
            await all_begun.wait()
            yield request

        async with serving_bytes(meet, max_concurrent_streams=4) as address:
            channel = Channel(address)
            got = await asyncio.gather(*(taken_by(channel, b"%d" % n) for n in range(10)))
            assert got == [[b"%d" % n] for n in range(10)]
            assert len(peers) == 3
            channel.close()

    asyncio.run(run())


def test_the_server_is_told_the_time_limit() -> None:
    """As what is left of it."""

    async def left(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield str(context.time_remaining()).encode()

    async def run() -> None:
        async with serving_bytes(left) as address:
            channel = Channel(address)
            (message,) = await taken_by(channel, b"", timeout_s=500.0)
            assert 400.0 < float(message) <= 500.1
            channel.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("timeout_s", "text"),
    [
        (0.0, b"1m"),
        (0.0101, b"11m"),
        (600.0, b"600000m"),
        (1e5, b"100000S"),
        (1e12, b"99999999H"),
    ],
)
def test_a_time_limit_has_eight_digits_at_most(timeout_s: float, text: bytes) -> None:
    """As gRPC's protocol has it; never less than was asked for, as far as it can say."""
    assert timeout_text(timeout_s) == text


def test_what_a_caller_raises_ends_the_call_alone() -> None:
    """Another on the same connection goes on."""

    async def run() -> None:
        async with serving_bytes(random_messages) as address:
            channel = Channel(address)

            def refuse(message: bytes, _: float) -> bool:
                raise ValueError("no")

            with pytest.raises(ValueError, match="no"):
                await channel.call(METHOD, b"1", refuse, timeout_s=LIMIT_S)
            assert await taken_by(channel, b"1")
            channel.close()

    asyncio.run(run())


def test_calls_that_wait_for_a_connection_end_with_the_channel() -> None:
    """However many share the one attempt."""

    async def run() -> None:
        silent = socket.create_server(("127.0.0.1", 0))
        channel = Channel(f"127.0.0.1:{silent.getsockname()[1]}")
        calls: Sequence[Awaitable[list[bytes]]] = [
            asyncio.create_task(taken_by(channel, b"", timeout_s=limit_s))
            for limit_s in (0.05, LIMIT_S, LIMIT_S)
        ]
        with pytest.raises(CallFailedError, match="DEADLINE_EXCEEDED"):
            await calls[0]
        channel.close()
        for call in calls[1:]:
            with pytest.raises(CallFailedError, match="CANCELLED"):
                await call
        silent.close()

    asyncio.run(run())
