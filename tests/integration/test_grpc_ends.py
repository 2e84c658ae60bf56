"""How requests over gRPC end, with calls of our own and with the SDK's: alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from fake_inference import (
    LIMIT_S,
    Fail,
    FakeInference,
    Gate,
    Script,
    delta,
    finished,
    free_port,
    serving,
    started,
)

from readahead.loadgen import grpc_frames as h2
from readahead.loadgen.grpc_channel import Channel
from readahead.loadgen.grpc_hpack import encoded
from readahead.loadgen.grpc_sender import GENERATE, GrpcSender
from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome
from readahead.loadgen.request import Part, Request
from readahead.loadgen.senders import Cause, Result, SendOptions
from readahead.loadgen.timeline import Timeline
from readahead.v1 import sampling_pb2

REQUEST = Request(request_id="r", parts=(Part(role="user", content="hello"),), output_tokens=3)


async def sent(
    address: str,
    *,
    with_sdk: bool,
    timeout_s: float = 100.0,
    on_tokens: Callable[[int, float], None] | None = None,
) -> tuple[Result, list[int]]:
    """A request's end, and the tokens of its frames."""
    sender = GrpcSender(f"grpc://{address}", is_chat=False)
    if with_sdk:
        sender._channel = None
    timeline = Timeline(arrival_s=0.0, counts=LiveCounts(), on_tokens=on_tokens)
    options = SendOptions(model="", timeout_s=timeout_s, ignore_eos=True)
    async with sender, asyncio.timeout(LIMIT_S):
        return await sender.send(REQUEST, options, timeline), list(timeline.tokens)


def sent_by_both(address: str, *, timeout_s: float = 100.0) -> list[tuple[Result, list[int]]]:
    """By our calls and by the SDK's."""
    return [
        asyncio.run(sent(address, with_sdk=with_sdk, timeout_s=timeout_s))
        for with_sdk in (False, True)
    ]


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ([started(), delta("a"), delta("bc", 1, 2), finished(3)], Outcome.FINISHED),
        ([Fail(code=grpc.StatusCode.UNAVAILABLE)], Outcome.FAILED),
        ([Fail(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER")], Outcome.REJECTED),
        ([Fail(code=grpc.StatusCode.RESOURCE_EXHAUSTED)], Outcome.REJECTED),
        ([Fail(code=grpc.StatusCode.INTERNAL, message="50 % of ünits\n")], Outcome.FAILED),
        ([Fail(code=grpc.StatusCode.ABORTED, raw_details=b"\xff\xff")], Outcome.FAILED),
        ([Fail(code=grpc.StatusCode.DEADLINE_EXCEEDED)], Outcome.FAILED),
        ([started(), delta("a"), Fail(code=grpc.StatusCode.UNAVAILABLE)], Outcome.FAILED),
        ([started(), delta("a"), Fail(code=grpc.StatusCode.CANCELLED)], Outcome.FAILED),
        ([started(), delta("a")], Outcome.FAILED),
        ([], Outcome.FAILED),
        ([started(), finished(0, reason=sampling_pb2.FINISH_REASON_CANCELLED)], Outcome.FAILED),
        ([started(), finished(0, reason=sampling_pb2.FINISH_REASON_UNSPECIFIED)], Outcome.FAILED),
    ],
)
def test_results_are_those_of_the_sdk(script: Script, outcome: Outcome) -> None:
    """To the last word."""
    with serving(FakeInference(script)) as address:
        ours, theirs = sent_by_both(address)
    assert ours == theirs
    assert ours[0].outcome is outcome


def test_the_time_limit_ends_a_call_on_both_sides() -> None:
    """As it does with the SDK, and the server hears of it."""
    service = FakeInference([started(), delta("a"), Gate()], [started(), delta("a"), Gate()])
    with serving(service) as address:
        ours, theirs = sent_by_both(address, timeout_s=0.3)
        assert [service.ended.get(timeout=LIMIT_S) for _ in range(2)] == ["r", "r"]
    assert (summary(ours[0]), ours[1]) == (summary(theirs[0]), theirs[1])
    assert ours[0].cause == Cause.TIMEOUT


def test_cancelling_ends_a_call_on_the_server() -> None:
    """And the connection serves the next."""
    gate = Gate()
    service = FakeInference([started(), delta("a"), gate], [started(), finished(0)])

    async def run(address: str) -> None:
        async with GrpcSender(f"grpc://{address}", is_chat=False) as sender:
            options = SendOptions(model="", timeout_s=100.0, ignore_eos=True)
            timeline = Timeline(arrival_s=0.0, counts=LiveCounts())
            task = asyncio.create_task(sender.send(REQUEST, options, timeline))
            await asyncio.to_thread(gate.reached.wait, LIMIT_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(service.ended.get, timeout=LIMIT_S) == "r"
            result = await sender.send(REQUEST, options, timeline)
            assert result.outcome is Outcome.FINISHED

    with serving(service) as address:
        asyncio.run(run(address))


def test_reports_are_taken_or_not() -> None:
    """As the server says."""
    service = FakeInference()
    service.unary_failures = [Fail(code=grpc.StatusCode.NOT_FOUND, reason="REQUEST_NOT_FOUND")]

    async def run(address: str) -> list[bool]:
        async with GrpcSender(f"grpc://{address}", is_chat=False) as sender:
            return [await sender.report_reading("r", tokens) for tokens in (3, 4)]

    with serving(service) as address:
        assert asyncio.run(run(address)) == [False, True]
    assert service.readings == [("r", 4)]


ANSWER = h2.frame(
    h2.HEADERS,
    h2.END_HEADERS,
    1,
    encoded([(b":status", b"200"), (b"content-type", b"application/grpc")]),
)


def data(content: bytes, flags: int = 0) -> bytes:
    return h2.frame(h2.DATA, flags, 1, content)


def last_headers(*headers: tuple[bytes, bytes]) -> bytes:
    return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, encoded(headers))


def goaway(last_id: int) -> bytes:
    return h2.frame(h2.GOAWAY, 0, 0, last_id.to_bytes(4) + bytes(4))


BEGUN = ANSWER + data(h2.message(started().SerializeToString()))
BEGUN += data(h2.message(delta("a").SerializeToString()))
DONE = data(h2.message(finished(1).SerializeToString()))
WELL = last_headers((b"grpc-status", b"0"))


class ScriptedServer:
    """HTTP/2 that answers each connection's first call with some bytes, and once a token of them
    was taken with some more: gRPC's client drops what came together with a bad end.
    """

    def __init__(self, begin: bytes, end: bytes, *, closes: bool) -> None:
        self._begin, self._end, self._closes = begin, end, closes
        self._taken = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()

    def on_tokens(self, tokens: int, at_s: float) -> None:
        """A token was taken."""
        self._taken.set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Gives host:port."""
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            await self._talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames, is_asked = h2.FrameReader(), False
        writer.write(h2.settings({}))
        await reader.readexactly(len(h2.PREFACE))
        while piece := await reader.read(65536):
            for frame in frames.feed(piece):
                if frame.kind == h2.SETTINGS and not frame.flags & h2.ACK:
                    writer.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
                elif frame.kind == h2.DATA and not is_asked:
                    is_asked = True
                    writer.write(self._begin)
                    if self._begin:
                        await self._taken.wait()
                        self._taken.clear()
                    writer.write(self._end)
                    if self._closes:
                        return


BAD_ENDS: dict[str, tuple[bytes, bytes, bool]] = {
    "none, well": (BEGUN, DONE + WELL, False),
    "closed at once": (b"", b"", True),
    "closed after headers": (b"", ANSWER, True),
    "closed after tokens": (BEGUN, b"", True),
    "refused": (b"", h2.reset(1, 0x7), False),
    "reset": (BEGUN, h2.reset(1, 0x2), False),
    "reset as cancelled": (BEGUN, h2.reset(1, 0x8), False),
    "reset as too much": (BEGUN, h2.reset(1, 0xB), False),
    "leaving before": (b"", goaway(0), True),
    "leaving after": (goaway(1) + BEGUN, DONE + WELL, False),
    "leaving within": (BEGUN, goaway(1), True),
    "compressed": (b"", ANSWER + data(b"\x01\x00\x00\x00\x01x"), False),
    "too large": (b"", ANSWER + data(b"\x00\xff\x00\x00\x01x"), False),
    "half a message": (b"", ANSWER + data(b"\x00\x00\x00\x00\x05x") + WELL, False),
    "no last event": (BEGUN, WELL, False),
    "a proxy's 503": (b"", last_headers((b":status", b"503"), (b"server", b"proxy")), False),
    "a proxy's 401": (b"", last_headers((b":status", b"401"), (b"server", b"proxy")), False),
    "no status": (BEGUN, last_headers((b"x", b"y")), False),
    "a status alone": (
        b"",
        last_headers(
            *((b":status", b"200"), (b"content-type", b"application/grpc")),
            *((b"grpc-status", b"8"), (b"grpc-message", b"full%20house")),
        ),
        False,
    ),
    "not HTTP/2": (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", True),
}


@pytest.mark.parametrize("name", BAD_ENDS)
def test_bad_ends_are_those_of_the_sdk(name: str) -> None:
    """The same outcome, cause and reason, and the same tokens before; the words are our own."""

    async def run() -> None:
        begin, end, closes = BAD_ENDS[name]
        script = ScriptedServer(begin, end, closes=closes)
        async with script.serving() as address:
            (ours, tokens), (theirs, their_tokens) = [
                await sent(address, with_sdk=with_sdk, on_tokens=script.on_tokens)
                for with_sdk in (False, True)
            ]
        assert (summary(ours), tokens) == (summary(theirs), their_tokens)

    asyncio.run(run())


def summary(result: Result) -> tuple[object, ...]:
    """All but the words of an error."""
    reason = result.error and result.error.partition(":")[0]
    return result.outcome, result.cause, reason, result.prompt_tokens, result.output_tokens


def test_a_server_that_cannot_be_reached() -> None:
    """Is told from one that fails; all who wait for the connection hear of it."""
    ours, theirs = sent_by_both(f"127.0.0.1:{free_port()}")
    assert summary(ours[0]) == summary(theirs[0])
    assert ours[0].cause == Cause.CONNECTION


def test_a_proxy_s_page_is_no_message() -> None:
    """Its status speaks, not its text."""

    async def run() -> None:
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, encoded([(b":status", b"503")]))
        page = head + data(b"<html>busy", h2.END_STREAM)
        async with ScriptedServer(b"", page, closes=False).serving() as address:
            result, _ = await sent(address, with_sdk=False)
        assert result.cause == Cause.CONNECTION

    asyncio.run(run())


def test_calls_after_a_goaway_go_to_a_new_connection() -> None:
    """What runs on the old one comes to its end."""

    async def run() -> None:
        answer = goaway(1) + BEGUN + DONE + WELL
        async with ScriptedServer(b"", answer, closes=False).serving() as address:
            channel, taken = Channel(address), list[bytes]()

            def take(message: bytes, _: float) -> bool:
                taken.append(message)
                return False

            for calls in (1, 2, 3):
                await channel.call(GENERATE, b"", take, timeout_s=LIMIT_S)
                assert len(taken) == 3 * calls
            channel.close()

    asyncio.run(run())
