"""Calls over HTTP/2: what holds however the bytes come, without a socket."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.loadgen import grpc_connection
from readahead.loadgen import grpc_frames as h2
from readahead.loadgen.grpc_connection import Connection
from readahead.loadgen.grpc_hpack import encoded
from readahead.loadgen.grpc_status import CallFailedError

HEAD = encoded([(b":method", b"POST")])
ANSWER = encoded([(b":status", b"200"), (b"content-type", b"application/grpc")])
WELL = encoded([(b"grpc-status", b"0")])

messages = st.lists(st.binary(max_size=40), max_size=5)


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.is_cut = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def abort(self) -> None:
        self.is_cut = True

    def close(self) -> None:
        self.is_cut = True

    def frames(self) -> list[h2.Frame]:
        """What has been written since the last look, after the preface."""
        reader = h2.FrameReader()
        frames = list(reader.feed(bytes(self.sent.removeprefix(h2.PREFACE))))
        self.sent.clear()
        return frames


def connected(values: dict[int, int] | None = None) -> tuple[Connection, Wire]:
    """A connection whose server has said its settings."""
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)
    connection.data_received(h2.settings(values or {}))
    return connection, wire


def pieces_of(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut at random places, empty pieces left out."""
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(6)))
    ends = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(ends) if b > a]


def stream_frames(number: int, contents: Iterable[bytes], rng: random.Random) -> list[bytes]:
    """The frames of an answer: its messages cut anywhere, some of them padded."""
    body = b"".join(h2.message(content) for content in contents)
    frames = [h2.frame(h2.HEADERS, h2.END_HEADERS, number, ANSWER)]
    for piece in pieces_of(body, rng):
        padding = rng.randrange(4)
        if padding:
            piece = bytes([padding]) + piece + bytes(padding)
        frames.append(h2.frame(h2.DATA, h2.PADDED if padding else 0, number, piece))
    cut = rng.randrange(len(WELL))
    frames.append(  # a header block in two frames, between which nothing else may come
        h2.frame(h2.HEADERS, h2.END_STREAM, number, WELL[:cut])
        + h2.frame(h2.CONTINUATION, h2.END_HEADERS, number, WELL[cut:])
    )
    return frames


@given(st.lists(messages, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_streams_may_be_mixed_and_cut_anywhere(
    contents: list[list[bytes]], rng: random.Random
) -> None:
    """Each call gets its own messages, in order, and then its end."""

    async def run() -> list[list[bytes]]:
        connection, _ = connected()
        taken: list[list[bytes]] = [[] for _ in contents]

        async def one(index: int) -> None:
            def take(message: bytes, _: float) -> bool:
                taken[index].append(message)
                return False

            await connection.call(HEAD, b"", take)

        calls = [asyncio.create_task(one(index)) for index in range(len(contents))]
        await asyncio.sleep(0)
        queues = [stream_frames(2 * i + 1, of_one, rng) for i, of_one in enumerate(contents)]
        data = b""
        while any(queues):
            data += rng.choice([queue for queue in queues if queue]).pop(0)
            data += rng.choice([b"", h2.frame(h2.PING, 0, 0, bytes(8)), h2.window_update(0, 1)])
        for piece in pieces_of(data, rng):
            connection.data_received(piece)
        await asyncio.gather(*calls)
        connection.close()
        return taken

    assert asyncio.run(run()) == contents


def test_an_answer_may_be_cut_at_each_byte() -> None:
    """Two pieces, whatever the place; and byte by byte."""
    contents = [b"", b"a", b"long" * 20]
    data = b"".join(stream_frames(1, contents, random.Random(3)))

    async def run(pieces: list[bytes]) -> list[bytes]:
        connection, _ = connected()
        taken: list[bytes] = []

        def take(message: bytes, _: float) -> bool:
            taken.append(message)
            return False

        call = asyncio.create_task(connection.call(HEAD, b"", take))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        await call
        connection.close()
        return taken

    for cut in range(1, len(data)):
        assert asyncio.run(run([data[:cut], data[cut:]])) == contents
    assert asyncio.run(run([data[at : at + 1] for at in range(len(data))])) == contents


def test_a_message_has_the_stamp_of_its_last_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one reading have one stamp, however long making something of them takes."""
    now_s = 0.0
    monkeypatch.setattr(grpc_connection, "monotonic_s", lambda: now_s)

    async def run() -> list[tuple[bytes, float]]:
        nonlocal now_s
        connection, _ = connected()
        taken: list[tuple[bytes, float]] = []

        def take(message: bytes, stamp_s: float) -> bool:
            nonlocal now_s
            now_s += 0.25
            taken.append((message, stamp_s))
            return False

        call = asyncio.create_task(connection.call(HEAD, b"", take))
        await asyncio.sleep(0)
        head = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, ANSWER)
        body = h2.frame(h2.DATA, 0, 1, b"".join(map(h2.message, (b"a", b"b", b"c"))))
        for piece in (head + body[:3], body[3:-1], body[-1:]):
            now_s += 1.0
            connection.data_received(piece)
        whole = h2.frame(h2.DATA, 0, 1, h2.message(b"d"))
        now_s = 4.0
        connection.data_received(whole + whole)
        connection.close()
        with pytest.raises(CallFailedError):
            await call
        return taken

    assert asyncio.run(run()) == [
        *((b"a", 3.0), (b"b", 3.0), (b"c", 3.0)),
        *((b"d", 4.0), (b"d", 4.0)),
    ]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 60_000), min_size=1, max_size=4),
    st.integers(0, 50_000),
    st.randoms(use_true_random=False),
)
def test_no_more_is_sent_than_the_server_takes(
    sizes: list[int], window_bytes: int, rng: random.Random
) -> None:
    """In a stream and in all, whatever grants come; and with enough of them all is sent."""

    async def run() -> None:
        connection, wire = connected({h2.INITIAL_WINDOW_SIZE: window_bytes})
        calls = [
            asyncio.create_task(connection.call(HEAD, bytes(size), lambda *_: False))
            for size in sizes
        ]
        await asyncio.sleep(0)
        initial, total = window_bytes, h2.WINDOW_BYTES_DEFAULT
        more = {2 * index + 1: 0 for index in range(len(sizes))}
        sent = dict.fromkeys(more, 0)
        ended: set[int] = set()

        def look() -> None:
            for frame in wire.frames():
                if frame.kind == h2.DATA:
                    assert frame.stream_id not in ended
                    assert 0 < len(frame.payload) <= h2.FRAME_BYTES_MAX
                    sent[frame.stream_id] += len(frame.payload)
                    assert sent[frame.stream_id] <= initial + more[frame.stream_id]
                    if frame.flags & h2.END_STREAM:
                        ended.add(frame.stream_id)
            assert sum(sent.values()) <= total

        look()
        for _ in range(12):
            grant, number = rng.randrange(1, 30_000), rng.choice([0, *more])
            if rng.random() < 0.2:
                # A smaller window may leave a stream with less than nothing: as if it were full.
                initial = max(rng.randrange(80_000), *(sent[one] - more[one] for one in more))
                connection.data_received(h2.settings({h2.INITIAL_WINDOW_SIZE: initial}))
            elif number:
                more[number] += grant
                connection.data_received(h2.window_update(number, grant))
            else:
                total += grant
                connection.data_received(h2.window_update(0, grant))
            look()
        total += 1 << 20
        connection.data_received(h2.window_update(0, 1 << 20))
        for number in more:
            more[number] += 1 << 20
            connection.data_received(h2.window_update(number, 1 << 20))
        look()
        assert list(sent.values()) == [size + h2.PREFIX_BYTES for size in sizes]
        assert ended == set(more)
        connection.close()
        for call in calls:
            with pytest.raises(CallFailedError, match="closed"):
                await call

    asyncio.run(run())


def test_a_server_that_sends_much_is_never_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows, as it reckons them, stay open and within what HTTP/2 allows."""
    monkeypatch.setattr(grpc_connection, "STREAM_WINDOW_BYTES", 100_000)
    monkeypatch.setattr(grpc_connection, "CONNECTION_WINDOW_BYTES", 150_000)

    async def run() -> None:
        connection, wire = connected()
        call = asyncio.create_task(connection.call(HEAD, b"", lambda *_: False))
        await asyncio.sleep(0)
        windows = {0: h2.WINDOW_BYTES_DEFAULT, 1: 0}

        def look() -> None:
            for frame in wire.frames():
                if frame.kind == h2.WINDOW_UPDATE:
                    windows[frame.stream_id] += h2.number_of(frame.payload)
                elif frame.kind == h2.SETTINGS and frame.payload:
                    windows[1] += dict(h2.settings_of(frame.payload))[h2.INITIAL_WINDOW_SIZE]

        look()
        connection.data_received(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, ANSWER))
        data = h2.frame(h2.DATA, 0, 1, h2.message(bytes(10_000 - h2.PREFIX_BYTES)))
        for _ in range(100):
            for window in windows:
                windows[window] -= 10_000
            assert min(windows.values()) >= 0
            connection.data_received(data)
            look()
            assert windows[0] <= 150_000
            assert windows[1] <= 100_000
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert wire.frames() == [h2.Frame(h2.RST_STREAM, 0, 1, h2.CANCEL.to_bytes(4))]
        # What comes of a cancelled call still counts for the connection.
        for _ in range(100):
            windows[0] -= 10_000
            assert windows[0] >= 0
            connection.data_received(data)
            look()
        connection.close()

    asyncio.run(run())


def test_a_call_that_is_through_lingers_no_longer_than_it_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that does not end it is told to."""
    monkeypatch.setattr(grpc_connection, "LINGER_S", 0.0)

    async def run() -> None:
        connection, wire = connected()
        call = asyncio.create_task(connection.call(HEAD, b"", lambda *_: True))
        await asyncio.sleep(0)
        connection.data_received(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, ANSWER))
        connection.data_received(h2.frame(h2.DATA, 0, 1, h2.message(b"all")))
        await call
        wire.frames()
        async with asyncio.timeout(5):
            while not wire.sent:  # noqa: ASYNC110 - each pass lets the timer go on
                await asyncio.sleep(0)
        assert wire.frames() == [h2.Frame(h2.RST_STREAM, 0, 1, h2.CANCEL.to_bytes(4))]
        connection.close()

    asyncio.run(run())


def test_a_server_that_is_silent_is_pinged_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a call waits for it."""
    monkeypatch.setattr(grpc_connection, "KEEPALIVE_S", 0.0)
    monkeypatch.setattr(grpc_connection, "KEEPALIVE_ANSWER_S", 0.0)

    async def run() -> None:
        connection, wire = connected()
        with pytest.raises(CallFailedError, match="ping") as failure:
            async with asyncio.timeout(5):
                await connection.call(HEAD, b"", lambda *_: False)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
        assert h2.Frame(h2.PING, 0, 0, bytes(8)) in wire.frames()
        assert wire.is_cut

    asyncio.run(run())


@given(st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_whatever_comes_ends_in_an_error_at_worst(pieces: list[bytes], is_ready: bool) -> None:
    """A server of another kind does not break the run."""

    async def run() -> None:
        connection, wire = Connection(), Wire()
        connection.connection_made(wire)
        if is_ready:
            connection.data_received(h2.settings({}))
        for piece in pieces:
            if not wire.is_cut:
                connection.data_received(piece)
        connection.close()
        assert not connection.has_room

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        h2.frame(h2.SETTINGS, 0, 0, b"12345"),
        h2.frame(h2.DATA, 0, 1, b"x"),
        h2.settings({}) + h2.frame(h2.PUSH_PROMISE, 0, 1, bytes(4)),
        h2.settings({}) + h2.frame(h2.DATA, h2.PADDED, 1, b"\x09x"),
        h2.settings({}) + h2.frame(h2.HEADERS, 0, 1, ANSWER) + h2.frame(h2.PING, 0, 0, bytes(8)),
        h2.settings({}) + h2.frame(h2.CONTINUATION, 0, 1, ANSWER),
        h2.settings({}) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff"),
        h2.settings({}) + h2.frame(h2.RST_STREAM, 0, 1, b"1"),
    ],
)
def test_what_is_not_http2_ends_the_connection(data: bytes) -> None:
    """Calls on it cannot go on: nobody knows what else is wrong."""

    async def run() -> None:
        connection, wire = Connection(), Wire()
        connection.connection_made(wire)
        call = asyncio.create_task(connection.call(HEAD, b"", lambda *_: False))
        await asyncio.sleep(0)
        connection.data_received(data)
        with pytest.raises(CallFailedError, match="not HTTP/2 as agreed") as failure:
            await call
        assert failure.value.code() is grpc.StatusCode.INTERNAL
        assert wire.is_cut

    asyncio.run(run())
