"""Frames of HTTP/2 (RFC 9113) and the messages of gRPC in them: bytes in, values out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY = 0, 1, 3, 4, 5, 6, 7
WINDOW_UPDATE, CONTINUATION = 8, 9

END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 2, 3, 4, 5

NO_ERROR, CANCEL = 0x0, 0x8

FRAME_BYTES_MAX = 16384
"""The default of both sides; we take no larger ones."""
WINDOW_BYTES_DEFAULT = 65535
WINDOW_BYTES_MAX = 2**31 - 1
STREAM_ID_MAX = 2**31 - 1
PRIORITY_BYTES = 5
PREFIX_BYTES = 5
"""Before each message: whether it is compressed, and its length."""

_HEAD = struct.Struct(">HBBBL")
_HEAD_BYTES = _HEAD.size
_SETTING = struct.Struct(">HL")
_NUMBER = struct.Struct(">L")
_PREFIX = struct.Struct(">BL")


class FrameError(ValueError):
    """What came is not HTTP/2, or not as agreed."""


class MessageError(ValueError):
    """What came in a stream is no message that can be read."""


class MessageTooLargeError(MessageError):
    """A message above the limit."""


class Frame(NamedTuple):
    """One frame."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


class FrameReader:
    """Cuts what is received into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with `data`; take all of them before the next call.

        Raises:
            FrameError: a frame is longer than agreed.
        """
        received = self._rest + data if self._rest else data
        at, end = 0, len(received)
        while end - at >= _HEAD_BYTES:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(received, at)
            length = high << 8 | low
            if length > FRAME_BYTES_MAX:
                raise FrameError(f"a frame of {length} bytes is no HTTP/2 as agreed")
            begin = at + _HEAD_BYTES
            if end - begin < length:
                break
            at = begin + length
            yield Frame(kind, flags, stream_id & STREAM_ID_MAX, received[begin:at])
        self._rest = received[at:]


class MessageReader:
    """Puts the messages of a stream together from the pieces in which they come."""

    __slots__ = ("_bytes_max", "_rest")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that are complete with `data`; take all of them before the next call.

        Raises:
            MessageError: a message is compressed, which was not offered, or too long.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < PREFIX_BYTES or len(self._rest) < self._needed(self._rest, 0):
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end = 0, len(data)
        while end - at >= PREFIX_BYTES:
            needed = self._needed(data, at)
            if end - at < needed:
                break
            yield data[at + PREFIX_BYTES : at + needed]
            at += needed
        self._rest += data[at:]

    def _needed(self, data: bytes | bytearray, at: int) -> int:
        """Bytes of the message at this place, its prefix included."""
        is_compressed, length = _PREFIX.unpack_from(data, at)
        if is_compressed:
            raise MessageError("a message is compressed, which was not offered")
        if length > self._bytes_max:
            raise MessageTooLargeError(
                f"received message larger than max ({length} vs. {self._bytes_max})"
            )
        return PREFIX_BYTES + int(length)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A frame's bytes."""
    length = len(payload)
    return _HEAD.pack(length >> 8, length & 0xFF, kind, flags, stream_id) + payload


def message(content: bytes) -> bytes:
    """A message with its prefix."""
    return _PREFIX.pack(0, len(content)) + content


def settings(values: dict[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*one) for one in values.items()))


def window_update(stream_id: int, more_bytes: int) -> bytes:
    """A WINDOW_UPDATE frame; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _NUMBER.pack(more_bytes))


def reset(stream_id: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream_id, _NUMBER.pack(code))


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """Names and values in a SETTINGS frame.

    Raises:
        FrameError: it has another length than such a frame can have.
    """
    if len(payload) % _SETTING.size:
        raise FrameError("a SETTINGS frame has a wrong length")
    return [(int(name), int(value)) for name, value in _SETTING.iter_unpack(payload)]


def number_of(payload: bytes) -> int:
    """The number with which a RST_STREAM, WINDOW_UPDATE or GOAWAY frame begins.

    Raises:
        FrameError: the frame is too short.
    """
    if len(payload) < _NUMBER.size:
        raise FrameError("a frame is too short")
    return int(_NUMBER.unpack_from(payload)[0])


def content_of(one: Frame) -> bytes:
    """A DATA or HEADERS frame's content, without padding and priority.

    Raises:
        FrameError: the padding is longer than the frame.
    """
    payload = one.payload
    if not one.flags & (PADDED | PRIORITY):
        return payload
    begin, end = 0, len(payload)
    if one.flags & PADDED:
        begin, end = 1, end - (payload[0] if payload else 0)
    if one.kind == HEADERS and one.flags & PRIORITY:
        begin += PRIORITY_BYTES
    if begin > end:
        raise FrameError("a frame is shorter than its padding")
    return payload[begin:end]
