"""Laws of what sends KV: whoever speaks HTTP/2 gets the messages, whole and in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.kv import grpc_reader
from readahead.services.kv.grpc_frames import (
    CALL,
    DATA,
    END_STREAM,
    FRAME_BYTES_DEFAULT,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    STALL_S,
    WINDOW_BYTES_DEFAULT,
    frame,
    receive_into,
    window_update,
)
from readahead.services.kv.grpc_reader import MessageStream
from readahead.services.kv.grpc_sender import Parts, StreamServer
from readahead.services.kv.grpc_wire import MESSAGE_BYTES_MAX, PULL
from readahead.services.kv.memory import Buffers

BUFFERS = Buffers(MESSAGE_BYTES_MAX)
MESSAGES = st.lists(
    st.lists(st.binary(max_size=300), min_size=1, max_size=4).filter(any), max_size=6
)
LARGE = [bytes([number]) * 150_000 for number in range(5)]


@contextmanager
def serving(server: StreamServer) -> Iterator[str]:
    """Its address, until the block is left."""
    port = server.start(host="127.0.0.1", port=0, tls=TlsConfig())
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop()


def ask(address: str, request: bytes = b"ask") -> MessageStream:
    tls = PeerTlsConfig()
    return MessageStream(address, tls=tls, request=request, timeout_s=1, buffers=BUFFERS)


def always(messages: list[Parts]) -> StreamServer:
    def answer(request: bytes) -> Generator[Parts, None, None]:
        assert request == b"ask"
        yield from messages

    return StreamServer(answer)


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[list[Parts], str]]:
    """What a server answers, for tests to fill in, and where it is."""
    messages: list[Parts] = []
    with serving(always(messages)) as address:
        yield messages, address


@settings(deadline=None)  # a connection each
@given(MESSAGES)
def test_pieces_arrive_as_messages(
    told: tuple[list[Parts], str], messages: list[list[bytes]]
) -> None:
    """However a message is cut into pieces, empty ones among them."""
    told[0][:] = messages
    with closing(ask(told[1])) as stream:
        assert [bytes(each) for each in stream] == [b"".join(parts) for parts in messages]


@pytest.mark.parametrize("pieces", [1, 700, 3000])
def test_more_pieces_than_the_kernel_takes_and_more_than_a_window(
    monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """The sender waits for room, and goes on with what is left."""
    monkeypatch.setattr(grpc_reader, "WINDOW_BYTES", WINDOW_BYTES_DEFAULT + 1)
    size = len(LARGE[0]) // pieces
    cut: list[Parts] = [
        [memoryview(each)[at : at + size] for at in range(0, len(each), size)] for each in LARGE
    ]
    with serving(always(cut)) as address, closing(ask(address)) as stream:
        assert [bytes(each) for each in stream] == LARGE


def test_no_more_is_sent_than_there_is_room_for() -> None:
    """In no larger frames than the peer takes; it is asked with HTTP/2's own limits."""
    with serving(always([[each] for each in LARGE])) as address:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), STALL_S) as client:
            question = frame(DATA, END_STREAM, CALL, b"\0\0\0\0\3ask")
            client.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 4, CALL) + question)
            sizes: list[int] = []
            while sum(sizes) < WINDOW_BYTES_DEFAULT:
                kind, size = next_frame(client)
                sizes += [size] * (kind == DATA)
            client.sendall(frame(PING, 0, 0, b"12345678"))
            assert next_frame(client) == (PING, 8)  # while it waits, it answers
            client.sendall(window_update(0, 1 << 20) + window_update(CALL, 1 << 20))
            while (news := next_frame(client))[0] == DATA:
                sizes.append(news[1])
            assert news[0] == HEADERS
    assert sum(sizes) == sum(5 + len(each) for each in LARGE)
    assert max(sizes) == FRAME_BYTES_DEFAULT


def next_frame(client: socket.socket) -> tuple[int, int]:
    """Its kind and size."""
    head = bytearray(9)
    receive_into(client, memoryview(head), 0)
    content = bytearray(int.from_bytes(head[:3], "big"))
    receive_into(client, memoryview(content), 0)
    return head[3], len(content)


def test_grpcs_own_client_can_read_it() -> None:
    """It is gRPC on the wire: small frames, small windows, a status at the end."""
    with (
        serving(always([[each] for each in LARGE])) as address,
        grpc.insecure_channel(address) as channel,
    ):
        open_stream: Any = channel.unary_stream(PULL, None, None)
        call = open_stream(b"ask", timeout=10)
        assert list(call) == LARGE
        assert call.code() is grpc.StatusCode.OK


def test_refusal_is_a_reset() -> None:
    """Before anything is sent, or after some of it."""

    def answer(request: bytes) -> Generator[Parts, None, None]:
        if request == b"late":
            yield [b"first"]
        raise ReadaheadError(Reason.KV_EXPIRED, "gone")

    with serving(StreamServer(answer)) as address:
        with closing(ask(address)) as stream:
            assert list(stream) == []
        with closing(ask(address, b"late")) as stream:
            assert [bytes(each) for each in stream] == [b"first"]


@pytest.mark.parametrize(
    "says",
    [b"GET / HTTP/1.1\r\n\r\n" + b" " * 50, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9],
)
def test_who_speaks_otherwise_is_hung_up_on(told: tuple[list[Parts], str], says: bytes) -> None:
    """And nothing of ours breaks: the next one is served."""
    host, _, port = told[1].rpartition(":")
    with socket.create_connection((host, int(port)), STALL_S) as stranger:
        stranger.sendall(says)
        with suppress(ConnectionResetError):  # it may close with something unread
            while stranger.recv(1000):
                pass
    told[0][:] = [[b"next"]]
    with closing(ask(told[1])) as stream:
        assert [bytes(each) for each in stream] == [b"next"]


def test_stop_and_a_reader_that_leaves_end_the_answer() -> None:
    """What the answer holds is let go, though it was not sent."""
    ended = threading.Semaphore(0)

    def answer(request: bytes) -> Generator[Parts, None, None]:
        try:
            while True:
                yield [LARGE[0]]
        finally:
            ended.release()

    server = StreamServer(answer)
    with serving(server) as address:
        with closing(ask(address)) as stream:
            next(iter(stream))
        assert ended.acquire(timeout=5)
        with closing(ask(address)) as stream:
            next(iter(stream))
            server.stop()
            assert ended.acquire(timeout=5)
