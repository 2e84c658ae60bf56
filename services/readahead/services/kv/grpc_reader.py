"""One stream of KV read from its socket straight into memory of ours, without gRPC's library.

gRPC in Python copies what it receives three times, with the interpreter held: about a second of
processor time for each GB, which is the most that a pull could have. This speaks as much HTTP/2
as one call needs, on a connection of its own, and copies once. It does not read headers: a stream
that does not bring everything is asked for again through gRPC's library, which says why.
"""

from __future__ import annotations

import itertools
import socket
import ssl
import struct
from collections.abc import Iterator

from readahead.runtime.config import PeerTlsConfig
from readahead.services.kv.grpc_wire import MESSAGE_BYTES_MAX

BUFFERS = 4
"""Messages in memory: one that is received, two that wait, one in use."""
WINDOW_BYTES = 4 * MESSAGE_BYTES_MAX
"""Most bytes on their way."""
STALL_S = 10.0
"""Silence after which the peer is taken for lost."""

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACKNOWLEDGED, _END_HEADERS, _PADDED = 1, 1, 4, 8
_CALL = 1
"""The stream's number."""
_CONTROL_BYTES_MAX = 1 << 16
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_WINDOW_BYTES_DEFAULT = 65_535


class MessageStream:
    """The answer to one request. Iterated by one thread; any thread may cancel it."""

    def __init__(
        self, address: str, *, tls: PeerTlsConfig, path: str, request: bytes, timeout_s: float
    ) -> None:
        """Connects and asks.

        Raises:
            OSError: nobody is there, or TLS does not come about.
            ValueError: the address has no port.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        self._socket: socket.socket = socket.create_connection((host, int(port)), STALL_S)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls.authority_file:
                self._socket = _secured(self._socket, tls, host)
            headers = {
                ":method": "POST",
                ":scheme": "https" if tls.authority_file else "http",
                ":path": path,
                ":authority": tls.server_name or address,
                "te": "trailers",
                "content-type": "application/grpc",
                "grpc-timeout": f"{round(timeout_s * 1000)}m",
            }
            settings = struct.pack(">HIHIHI", 2, 0, 4, WINDOW_BYTES, 5, (1 << 24) - 1)
            message = b"\0" + struct.pack(">I", len(request)) + request
            self._socket.sendall(
                _PREFACE
                + _frame(_SETTINGS, 0, 0, settings)
                + _frame(_WINDOW, 0, 0, struct.pack(">I", WINDOW_BYTES - _WINDOW_BYTES_DEFAULT))
                + _frame(_HEADERS, _END_HEADERS, _CALL, b"".join(map(_literal, headers.items())))
                + _frame(_DATA, _END_STREAM, _CALL, message)
            )
        except BaseException:
            self._socket.close()
            raise
        self._spare = itertools.cycle(bytearray(MESSAGE_BYTES_MAX) for _ in range(BUFFERS))
        self._prefix = bytearray()
        self._message = memoryview(b"")
        self._filled = 0
        self._unacknowledged = 0

    def __iter__(self) -> Iterator[memoryview]:
        """Messages, each valid until `BUFFERS - 1` further ones have been asked for.

        Raises:
            OSError: the connection is lost or stalls, or the stream was cancelled.
            ValueError: what comes is not what a gRPC server sends.
        """
        header = bytearray(9)
        while True:
            self._receive(memoryview(header))
            size = int.from_bytes(header[:3], "big")
            kind, flags = header[3], header[4]
            is_ours = int.from_bytes(header[5:], "big") == _CALL
            if kind == _DATA and is_ours:
                if flags & _PADDED:
                    raise ValueError("padded data")
                yield from self._take(size)
            else:
                self._answer(kind, flags, self._control(size))
            if is_ours and (kind == _RESET or (kind in (_DATA, _HEADERS) and flags & _END_STREAM)):
                return

    def cancel(self) -> None:
        """Ends it soon. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """Gives the connection back. After the last use by any thread but a canceller."""
        self._socket.close()

    def _take(self, size: int) -> Iterator[memoryview]:
        """Receives a data frame; yields the messages that it completes."""
        self._unacknowledged += size
        while size:
            if self._filled == len(self._message):  # between two messages
                part = bytearray(min(size, 5 - len(self._prefix)))
                self._receive(memoryview(part))
                self._prefix += part
                size -= len(part)
                if len(self._prefix) == 5:
                    self._begin()
                continue
            end = min(len(self._message), self._filled + size)
            self._receive(self._message[self._filled : end])
            size -= end - self._filled
            self._filled = end
            if end == len(self._message):
                yield self._message
        if self._unacknowledged >= WINDOW_BYTES // 4:
            news = struct.pack(">I", self._unacknowledged)
            self._socket.sendall(_frame(_WINDOW, 0, 0, news) + _frame(_WINDOW, 0, _CALL, news))
            self._unacknowledged = 0

    def _begin(self) -> None:
        is_compressed, size = struct.unpack(">BI", self._prefix)
        if is_compressed or not 0 < size <= MESSAGE_BYTES_MAX:
            raise ValueError(f"a message of {size} bytes, compressed: {is_compressed}")
        self._prefix.clear()
        self._message, self._filled = memoryview(next(self._spare))[:size], 0

    def _control(self, size: int) -> bytearray:
        if size > _CONTROL_BYTES_MAX:
            raise ValueError(f"a control frame of {size} bytes")
        content = bytearray(size)
        self._receive(memoryview(content))
        return content

    def _answer(self, kind: int, flags: int, content: bytearray) -> None:
        if flags & _ACKNOWLEDGED:
            return
        if kind == _PING:
            self._socket.sendall(_frame(_PING, _ACKNOWLEDGED, 0, content))
        elif kind == _SETTINGS:
            self._socket.sendall(_frame(_SETTINGS, _ACKNOWLEDGED, 0, b""))

    def _receive(self, view: memoryview) -> None:
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionError("the peer has closed the connection")
            view = view[count:]


def _secured(plain: socket.socket, tls: PeerTlsConfig, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=tls.authority_file)
    context.set_alpn_protocols(["h2"])
    if tls.certificate_file:
        context.load_cert_chain(tls.certificate_file, tls.key_file or None)
    return context.wrap_socket(plain, server_hostname=tls.server_name or host)


def _frame(kind: int, flags: int, stream: int, content: bytes | bytearray) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def _literal(header: tuple[str, str]) -> bytes:
    """A header for HPACK: not indexed, not compressed."""
    encoded = [_string(text.encode()) for text in header]
    return b"\0" + b"".join(encoded)


def _string(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)]) + text
    rest, encoded = len(text) - 127, bytearray(b"\x7f")
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + text
