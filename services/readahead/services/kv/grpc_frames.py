"""As much of HTTP/2 as a gRPC call needs that has a connection of its own.

What carries KV speaks it by hand on both sides: gRPC's library in Python copies each byte several
times more, with the interpreter held.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

DATA: Final = 0
HEADERS: Final = 1
RESET: Final = 3
SETTINGS: Final = 4
PING: Final = 6
GO_AWAY: Final = 7
WINDOW: Final = 8
"""Kinds of frames."""

END_STREAM: Final = 1
ACKNOWLEDGED: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8
"""Flags."""

STREAMS: Final = 3
INITIAL_WINDOW: Final = 4
FRAME_BYTES: Final = 5
"""Settings."""

CALL: Final = 1
"""The call's stream."""
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES_DEFAULT: Final = 65_535
FRAME_BYTES_DEFAULT: Final = 16_384
CONTROL_BYTES_MAX: Final = 1 << 16
"""Of a frame that carries no message."""
STALL_S: Final = 10.0
"""Silence after which the peer is taken for lost."""


def frame(kind: int, flags: int, stream: int, content: bytes | bytearray = b"") -> bytes:
    """A whole frame."""
    return frame_head(len(content), kind, flags, stream) + content


def frame_head(size: int, kind: int, flags: int, stream: int) -> bytes:
    """What goes before so many bytes."""
    return struct.pack(">I", size)[1:] + struct.pack(">BBI", kind, flags, stream)


def window_update(stream: int, size: int) -> bytes:
    """Lets the peer send so many bytes more."""
    return frame(WINDOW, 0, stream, struct.pack(">I", size))


def literal(name: str, value: str) -> bytes:
    """A header for HPACK: not indexed, not compressed."""
    return b"\0" + _string(name.encode()) + _string(value.encode())


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, encoded = len(text) - 127, bytearray(b"\x7f")
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + text


def wait_in_kernel(connection: socket.socket) -> None:
    """Has calls on a connection without TLS wait in the kernel until they are done.

    With a time limit of Python's they would come back for each piece, and take the interpreter
    from the engine each time.
    """
    limit = struct.pack("@ll", int(STALL_S), 0)
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def receive_into(connection: socket.socket, view: memoryview, flags: int) -> None:
    """Fills the view.

    Args:
        connection: with or without TLS.
        view: any memory.
        flags: `socket.MSG_WAITALL` for connections that wait in the kernel, else 0.

    Raises:
        OSError: the connection is lost or stalls.
    """
    while view:
        count = connection.recv_into(view, 0, flags)
        if not count:
            raise ConnectionError("the peer has closed the connection")
        view = view[count:]
