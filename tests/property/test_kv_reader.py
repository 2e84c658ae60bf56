"""Laws of the stream reader: what a server sends comes out, however it is cut into frames."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.runtime.config import PeerTlsConfig
from readahead.services.kv.grpc_reader import MessageStream
from readahead.services.kv.grpc_wire import MESSAGE_BYTES_MAX
from readahead.services.kv.memory import Buffers

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW = 0, 1, 3, 4, 6, 8
MESSAGES = st.lists(st.binary(min_size=1, max_size=300), max_size=6)
CUTS = st.lists(st.integers(0, 1000), max_size=12)
NOISE = st.lists(
    st.sampled_from(
        [(SETTINGS, 0, b""), (SETTINGS, 1, b""), (PING, 0, b"12345678"), (WINDOW, 0, b"\0\0\0\1")]
    ),
    max_size=12,
)


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def wrapped(message: bytes) -> bytes:
    return b"\0" + struct.pack(">I", len(message)) + message


@contextmanager
def server(says: bytes, *, closes: bool = True) -> Iterator[tuple[MessageStream, socket.socket]]:
    """A stream whose server says this, and the server's end."""
    ours, theirs = socket.socketpair()
    with pytest.MonkeyPatch.context() as patch, closing(theirs):
        patch.setattr(socket, "create_connection", lambda *arguments: ours)
        patch.setattr(socket.socket, "setsockopt", lambda *arguments: None)
        tls = PeerTlsConfig()
        stream = MessageStream(
            "h:1", tls=tls, request=b"ask", timeout_s=1, buffers=Buffers(MESSAGE_BYTES_MAX)
        )
        theirs.sendall(says)
        if closes:
            theirs.shutdown(socket.SHUT_WR)
        with closing(stream):
            yield stream, theirs


@given(MESSAGES, CUTS, NOISE)
def test_messages_are_those_that_were_sent(
    messages: list[bytes], cuts: list[int], noise: list[tuple[int, int, bytes]]
) -> None:
    """In order and whole, whatever stands between their frames."""
    data = b"".join(map(wrapped, messages))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    frames = [frame(HEADERS, 4, 1, b"ignored")]
    frames += [frame(DATA, 0, 1, data[a:b]) for a, b in itertools.pairwise(edges)]
    for position, (kind, flags, content) in enumerate(noise):
        frames.insert(position * 2 % (len(frames) + 1), frame(kind, flags, 0, content))
    with server(b"".join(frames) + frame(HEADERS, 5, 1, b"trailers")) as (stream, _):
        assert [bytes(message) for message in stream] == messages


@given(MESSAGES, st.integers(0, 3000))
def test_stream_that_breaks_off_is_a_lost_connection(messages: list[bytes], kept: int) -> None:
    """What came whole before it is given."""
    data = frame(DATA, 0, 1, b"".join(map(wrapped, messages)))[:kept]
    came: list[bytes] = []
    with server(data) as (stream, _), pytest.raises(OSError, match="closed"):
        came.extend(bytes(message) for message in stream)
    assert came == messages[: len(came)]


@pytest.mark.parametrize(
    "says",
    [
        frame(DATA, 0, 1, b"\1\0\0\0\1x"),
        frame(DATA, 0, 1, b"\0\xff\0\0\0"),
        frame(DATA, 0, 1, b"\0\0\0\0\0"),
        frame(DATA, 8, 1, b"\0"),
        frame(HEADERS, 4, 1, b"x" * 70_000),
    ],
    ids=["compressed", "too long", "empty", "padded", "endless headers"],
)
def test_what_no_source_of_ours_sends_is_refused(says: bytes) -> None:
    """It is asked for again through gRPC's library."""
    with server(says) as (stream, _), pytest.raises(ValueError):  # noqa: PT011  # any wording
        list(stream)


def test_reset_ends_the_stream_and_pings_are_answered() -> None:
    """A refusal may come as one; a server that probes must not think us dead."""
    says = frame(PING, 0, 0, b"12345678") + frame(SETTINGS, 0, 0, b"") + frame(RESET, 0, 1, b"abcd")
    with server(says, closes=False) as (stream, theirs):
        assert list(stream) == []
        heard = theirs.recv(10_000)
    assert frame(PING, 1, 0, b"12345678") in heard
    assert heard.endswith(frame(SETTINGS, 1, 0, b""))


def test_cancelled_stream_ends() -> None:
    """For a thread that waits for more."""
    with server(b"", closes=False) as (stream, _):
        stream.cancel()
        with pytest.raises(OSError, match="closed"):
            list(stream)
        stream.cancel()
