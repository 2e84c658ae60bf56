"""One method of a gRPC server, sent from where its data lies, without gRPC's library.

gRPC in Python copies what it sends into fresh memory, with the interpreter held, and begins the
next message when the last one has left. Here the kernel copies from the host store.
Each connection carries one call. Headers are not read, since there is but one method; who cannot
have what he asks for gets a reset, and asks gRPC's library why.
"""

from __future__ import annotations

import itertools
import logging
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

from readahead.core.errors import ReadaheadError
from readahead.runtime.config import TlsConfig
from readahead.services.kv.grpc_frames import (
    ACKNOWLEDGED,
    CALL,
    CONTROL_BYTES_MAX,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    FRAME_BYTES_DEFAULT,
    GO_AWAY,
    HEADERS,
    INITIAL_WINDOW,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    STALL_S,
    STREAMS,
    WINDOW,
    WINDOW_BYTES_DEFAULT,
    frame,
    frame_head,
    literal,
    receive_into,
    wait_in_kernel,
)

STREAMS_MAX = 8
"""Copies that are sent at once; others wait."""

Parts = Sequence[bytes | memoryview]
"""A message, in pieces."""
Answer = Callable[[bytes], Generator[Parts, None, None]]
"""Makes the messages that answer a request. A piece stays as it is until the next one is wanted.

Raises:
    ReadaheadError: they cannot be had.
    ValueError: that is no request.
"""

_REQUEST_BYTES_MAX = 1 << 20
_REST_S = 0.05
"""After a connection that did not come about."""
_PIECES_MAX = 512
"""In one call of the kernel, which takes 1024."""
_HTTP_OK = b"\x88"
_REFUSED = struct.pack(">I", 7)

_log = logging.getLogger(__name__)


class StreamServer:
    """Listens, and answers each connection in a thread of its own."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener: socket.socket | None = None
        self._listening: threading.Thread | None = None
        self._pool = ThreadPoolExecutor(STREAMS_MAX, thread_name_prefix="kv-stream")
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def start(self, *, host: str, port: int, tls: TlsConfig) -> int:
        """Listens; returns the port.

        Raises:
            OSError: the address cannot be had, or a PEM file not read.
        """
        context = _context(tls) if tls.certificate_file else None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        self._listener = listener
        self._listening = threading.Thread(
            target=self._listen, args=(listener, context), name="kv-streams", daemon=True
        )
        self._listening.start()
        return int(listener.getsockname()[1])

    def stop(self) -> None:
        """Cuts off what is being sent. Idempotent."""
        with self._lock:
            self._stopped.set()
            connections = list(self._open)
        for each in connections:
            _shut(each)
        if self._listener is not None and self._listening is not None:
            _shut(self._listener)
            self._listening.join()
            self._listener.close()
        self._pool.shutdown(wait=True)

    def _listen(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopped.wait(_REST_S):
                    return
                continue  # the peer has left again, or there are too many open files
            try:
                self._pool.submit(self._serve, connection, context)
            except RuntimeError:  # it has just been stopped
                connection.close()

    def _serve(self, plain: socket.socket, context: ssl.SSLContext | None) -> None:
        connection = plain
        try:
            if context is not None:
                connection = context.wrap_socket(
                    plain, server_side=True, do_handshake_on_connect=False
                )
            with self._lock:
                if self._stopped.is_set():
                    return
                self._open.add(connection)
            _Call(connection).answer(self._answer)
        except (OSError, ValueError, struct.error) as error:
            # Whoever it is asks again, through gRPC's library.
            _log.debug("kv_stream_broken: %s", error)
        except Exception:
            _log.exception("kv_stream_failed: report this as a bug of Readahead")
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()


class _Call:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._flags = 0
        self._windows = {0: WINDOW_BYTES_DEFAULT, CALL: WINDOW_BYTES_DEFAULT}
        self._initial_window = WINDOW_BYTES_DEFAULT
        self._frame_bytes_max = FRAME_BYTES_DEFAULT
        self._request = bytearray()
        self._is_asked = False

    def answer(self, answer: Answer) -> None:
        """Reads the request, and sends what answers it.

        Raises:
            OSError: the connection is lost or stalls.
            ValueError: the peer speaks otherwise.
        """
        self._open()
        while not self._is_asked:
            self._read_frame()
        is_compressed, size = struct.unpack_from(">BI", self._request)
        if is_compressed or size != len(self._request) - 5:
            raise ValueError("a request in another form")
        try:
            with closing(answer(bytes(self._request[5:]))) as messages:
                head = _HTTP_OK + literal("content-type", "application/grpc")
                self._socket.sendall(frame(HEADERS, END_HEADERS, CALL, head))
                for message in messages:
                    self._send(message)
        except ReadaheadError:
            end = frame(RESET, 0, CALL, _REFUSED)
        else:
            flags = END_HEADERS | END_STREAM
            end = frame(HEADERS, flags, CALL, literal("grpc-status", "0"))
        self._socket.sendall(end)
        # To close with something unread would take back what is still on its way.
        self._socket.shutdown(socket.SHUT_WR)
        while self._socket.recv(CONTROL_BYTES_MAX):
            pass

    def _open(self) -> None:
        self._socket.settimeout(STALL_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.do_handshake()
        else:
            wait_in_kernel(self._socket)
            self._flags = socket.MSG_WAITALL
        if self._receive(len(PREFACE)) != PREFACE:
            raise ValueError("no HTTP/2")
        self._socket.sendall(frame(SETTINGS, 0, 0, struct.pack(">HI", STREAMS, 1)))

    def _read_frame(self) -> None:
        header = self._receive(9)
        size, kind, flags = int.from_bytes(header[:3], "big"), header[3], header[4]
        stream = int.from_bytes(header[5:], "big")
        content = self._receive(size)
        if kind == DATA and stream == CALL:
            self._request += content
            if len(self._request) > _REQUEST_BYTES_MAX:
                raise ValueError("a request that is too long")
            self._is_asked = bool(flags & END_STREAM)
        elif kind == SETTINGS and not flags & ACKNOWLEDGED:
            self._set(content)
            self._socket.sendall(frame(SETTINGS, ACKNOWLEDGED, 0))
        elif kind == WINDOW and stream in self._windows:
            self._windows[stream] += int.from_bytes(content, "big")
        elif kind == PING and not flags & ACKNOWLEDGED:
            self._socket.sendall(frame(PING, ACKNOWLEDGED, 0, content))
        elif kind in (RESET, GO_AWAY):
            raise ConnectionError("the peer does not want it any more")

    def _set(self, content: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", content):
            if name == INITIAL_WINDOW:
                self._windows[CALL] += value - self._initial_window
                self._initial_window = value
            elif name == FRAME_BYTES:
                self._frame_bytes_max = value

    def _send(self, message: Parts) -> None:
        """A message, in frames as large as the peer has room for."""
        size = sum(map(len, message))
        prefix = b"\0" + struct.pack(">I", size)
        left = deque(memoryview(each) for each in (prefix, *message) if each)
        size += len(prefix)
        while size:
            while not (room := min(*self._windows.values(), self._frame_bytes_max)) > 0:
                self._read_frame()
            part = min(size, room)
            for stream in self._windows:
                self._windows[stream] -= part
            size -= part
            head = memoryview(frame_head(part, DATA, 0, CALL))
            self._send_pieces(deque((head, *_taken(left, part))))

    def _send_pieces(self, pieces: deque[memoryview]) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            for piece in pieces:
                self._socket.sendall(piece)
            return
        while pieces:
            sent = self._socket.sendmsg(itertools.islice(pieces, _PIECES_MAX))
            _taken(pieces, sent)

    def _receive(self, size: int) -> bytes:
        if size > _REQUEST_BYTES_MAX:
            raise ValueError(f"a frame of {size} bytes")
        content = bytearray(size)
        receive_into(self._socket, memoryview(content), self._flags)
        return bytes(content)


def _taken(pieces: deque[memoryview], size: int) -> list[memoryview]:
    """Takes so many bytes off the front."""
    taken = []
    while size:
        piece = pieces.popleft()
        if len(piece) > size:
            pieces.appendleft(piece[size:])
            piece = piece[:size]
        taken.append(piece)
        size -= len(piece)
    return taken


def _context(tls: TlsConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tls.certificate_file, tls.key_file)
    if tls.client_authority_file:
        context.load_verify_locations(tls.client_authority_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended by itself
        connection.shutdown(socket.SHUT_RDWR)
