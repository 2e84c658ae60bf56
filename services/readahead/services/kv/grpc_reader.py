"""One stream of KV read from its socket straight into memory of ours, without gRPC's library.

gRPC in Python copies what it receives three times, with the interpreter held: about a second of
processor time for each GB, which is the most that a pull could have. This copies once. It does not
read headers: a stream that does not bring everything is asked for again through gRPC's library,
which says why.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator

from readahead.runtime.config import PeerTlsConfig
from readahead.services.kv.grpc_frames import (
    ACKNOWLEDGED,
    CALL,
    CONTROL_BYTES_MAX,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    INITIAL_WINDOW,
    PADDED,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    STALL_S,
    WINDOW_BYTES_DEFAULT,
    frame,
    literal,
    receive_into,
    wait_in_kernel,
    window_update,
)
from readahead.services.kv.grpc_wire import MESSAGE_BYTES_MAX, PULL
from readahead.services.kv.memory import Buffers

WINDOW_BYTES = 4 * MESSAGE_BYTES_MAX
"""Most bytes on their way. They wait in the kernel."""
CONNECT_S_MAX = 2.0


class MessageStream:
    """The answer to one request. Iterated by one thread; any thread may cancel it."""

    def __init__(
        self,
        address: str,
        *,
        tls: PeerTlsConfig,
        request: bytes,
        timeout_s: float,
        buffers: Buffers,
    ) -> None:
        """Connects and asks.

        Raises:
            OSError: nobody is there, or TLS does not come about.
            ValueError: the address has no port.
        """
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        self._socket: socket.socket = socket.create_connection((host, int(port)), CONNECT_S_MAX)
        self._flags = 0
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls.authority_file:
                self._socket.settimeout(STALL_S)
                self._socket = _secured(self._socket, tls, host)
            else:
                wait_in_kernel(self._socket)
                self._flags = socket.MSG_WAITALL
            headers = {
                ":method": "POST",
                ":scheme": "https" if tls.authority_file else "http",
                ":path": PULL,
                ":authority": tls.server_name or address,
                "te": "trailers",
                "content-type": "application/grpc",
                "grpc-timeout": f"{round(timeout_s * 1000)}m",
            }
            self._socket.sendall(_question(headers, request))
        except BaseException:
            self._socket.close()
            raise
        self._buffers = buffers
        self._buffer = buffers.take()
        self._prefix = bytearray()
        self._message = memoryview(b"")
        self._filled = 0
        self._unacknowledged = 0

    def __iter__(self) -> Iterator[memoryview]:
        """Messages, each valid until the next one is asked for.

        Raises:
            OSError: the connection is lost or stalls, or the stream was cancelled.
            ValueError: what comes is not what a source of ours sends.
        """
        header = bytearray(9)
        while True:
            self._receive(memoryview(header))
            size = int.from_bytes(header[:3], "big")
            kind, flags = header[3], header[4]
            is_ours = int.from_bytes(header[5:], "big") == CALL
            if kind == DATA and is_ours:
                if flags & PADDED:
                    raise ValueError("padded data")
                yield from self._take(size)
            else:
                self._answer(kind, flags, self._control(size))
            if is_ours and (kind == RESET or (kind in (DATA, HEADERS) and flags & END_STREAM)):
                return

    def cancel(self) -> None:
        """Ends it soon. Idempotent."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it has ended

    def close(self) -> None:
        """Gives connection and memory back. After the last use by any thread but a canceller."""
        self._socket.close()
        self._buffers.give(self._buffer)

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
            news = self._unacknowledged
            self._socket.sendall(window_update(0, news) + window_update(CALL, news))
            self._unacknowledged = 0

    def _begin(self) -> None:
        is_compressed, size = struct.unpack(">BI", self._prefix)
        if is_compressed or not 0 < size <= self._buffers.size_bytes:
            raise ValueError(f"a message of {size} bytes, compressed: {is_compressed}")
        self._prefix.clear()
        self._message, self._filled = memoryview(self._buffer)[:size], 0

    def _control(self, size: int) -> bytearray:
        if size > CONTROL_BYTES_MAX:
            raise ValueError(f"a control frame of {size} bytes")
        content = bytearray(size)
        self._receive(memoryview(content))
        return content

    def _answer(self, kind: int, flags: int, content: bytearray) -> None:
        if flags & ACKNOWLEDGED:
            return
        if kind == PING:
            self._socket.sendall(frame(PING, ACKNOWLEDGED, 0, content))
        elif kind == SETTINGS:
            self._socket.sendall(frame(SETTINGS, ACKNOWLEDGED, 0))

    def _receive(self, view: memoryview) -> None:
        receive_into(self._socket, view, self._flags)


def _question(headers: dict[str, str], request: bytes) -> bytes:
    """All that is sent before the answer."""
    settings = struct.pack(
        ">HIHIHI", 2, 0, INITIAL_WINDOW, WINDOW_BYTES, FRAME_BYTES, (1 << 24) - 1
    )
    message = b"\0" + struct.pack(">I", len(request)) + request
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, settings)
        + window_update(0, WINDOW_BYTES - WINDOW_BYTES_DEFAULT)
        + frame(HEADERS, END_HEADERS, CALL, b"".join(literal(*each) for each in headers.items()))
        + frame(DATA, END_STREAM, CALL, message)
    )


def _secured(plain: socket.socket, tls: PeerTlsConfig, host: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=tls.authority_file)
    context.set_alpn_protocols(["h2"])
    if tls.certificate_file:
        context.load_cert_chain(tls.certificate_file, tls.key_file or None)
    return context.wrap_socket(plain, server_hostname=tls.server_name or host)
