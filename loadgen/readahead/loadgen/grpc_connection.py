"""An HTTP/2 connection of our own for calls with one request and a stream of answers.

Bytes are stamped when they are received, before anything is made of them, and no task is woken
for a message. With gRPC's own client a token took more than twice the processor time:
`python benchmarks/bench_load.py --door grpc-sdk` beside `--door grpc`.
"""

from __future__ import annotations

import asyncio
from typing import cast

import grpc

from readahead.client.connection import MESSAGE_BYTES_MAX
from readahead.loadgen import grpc_frames as h2
from readahead.loadgen.grpc_hpack import Decoder, Header, HeaderError
from readahead.loadgen.grpc_status import CallFailedError, failure_of_reset
from readahead.loadgen.grpc_stream import OnMessage, Stream
from readahead.runtime.clock import monotonic_s

LINGER_S = 2.0
"""How long an answer that is through may take to say so before it is cancelled."""
STREAM_WINDOW_BYTES = 2 * MESSAGE_BYTES_MAX
"""What a server may send ahead in a call: told anew at each half, so a message always fits."""
CONNECTION_WINDOW_BYTES = 1 << 30
HEADER_BYTES_MAX = 1 << 20
"""Of one header block, so that no server can fill the memory."""
KEEPALIVE_S, KEEPALIVE_ANSWER_S = 30.0, 10.0
"""As the SDK's: calls wait, nothing comes; then a ping that nobody answers."""


class Connection(asyncio.Protocol):
    """One connection, for many calls at once."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}
        self._frames = h2.FrameReader()
        self._headers = Decoder()
        self._block: tuple[h2.Frame, bytearray] | None = None
        self._out = bytearray()
        self._next_id = 1
        self._streams_max = h2.STREAM_ID_MAX
        self._stream_window_bytes = h2.WINDOW_BYTES_DEFAULT
        self._window_bytes = h2.WINDOW_BYTES_DEFAULT
        self._taken_bytes = 0
        self._frame_bytes_max = h2.FRAME_BYTES_MAX
        self._is_leaving = False
        self._received_s = 0.0
        self._keepalive: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the server has said how it wants to be talked to; fails with an OSError."""

    @property
    def is_open(self) -> bool:
        """Whether it may take calls, now or later."""
        return (
            self._transport is not None
            and not self._is_leaving
            and self._next_id <= h2.STREAM_ID_MAX
        )

    @property
    def is_lost(self) -> bool:
        """Whether no call can be left on it."""
        return self._transport is None

    @property
    def has_room(self) -> bool:
        """Whether a call can be begun on it now."""
        return self.is_open and self.ready.done() and len(self._streams) < self._streams_max

    async def call(self, head: bytes, message: bytes, on_message: OnMessage) -> None:
        """Sends a request, and hands its answer to `on_message` until that says so, or its end.

        Args:
            head: the encoded headers, of one frame's length at most.
            message: the request, without the prefix of gRPC.
            on_message: called within the loop's reading; what it raises ends the call.

        Raises:
            CallFailedError: the call ended with another status than OK.
            Exception: of `on_message`.
        """
        stream = Stream(
            self._next_id,
            h2.message(message),
            on_message,
            send_window_bytes=self._stream_window_bytes,
            message_bytes_max=MESSAGE_BYTES_MAX,
        )
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self._out += h2.frame(h2.HEADERS, h2.END_HEADERS, stream.stream_id, head)
        self._send(stream)
        self._flush()
        try:
            await stream.done
        except BaseException as error:  # cancelled too: the server learns of it
            self._reset(stream, error if isinstance(error, Exception) else None)
            raise
        if stream.stream_id in self._streams:
            loop = asyncio.get_running_loop()
            stream.lingers = loop.call_later(LINGER_S, self._reset, stream, None)

    def close(self) -> None:
        """Gives the connection up; calls end as cancelled."""
        self._fail(grpc.StatusCode.CANCELLED, "the client was closed")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of its own kind
        ours = {h2.ENABLE_PUSH: 0, h2.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES}
        self._out += h2.PREFACE + h2.settings(ours)
        more_bytes = CONNECTION_WINDOW_BYTES - h2.WINDOW_BYTES_DEFAULT
        self._out += h2.window_update(0, more_bytes)
        self._flush()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        stamp_s = self._received_s = monotonic_s()
        try:
            for frame in self._frames.feed(data):
                if frame.kind == h2.DATA:
                    self._on_data(frame, stamp_s)
                else:
                    self._on_other(frame)
        except (h2.FrameError, HeaderError) as error:
            why = f"what came is not HTTP/2 as agreed: {error}"
            self._fail(grpc.StatusCode.INTERNAL, why)
            return
        if self._out:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._lose(str(exc or "the server closed the connection"))

    def _on_data(self, frame: h2.Frame, stamp_s: float) -> None:
        if not self.ready.done() or self._block is not None:
            raise h2.FrameError("a DATA frame where none may be")
        size = len(frame.payload)
        self._taken_bytes += size
        if self._taken_bytes >= CONNECTION_WINDOW_BYTES // 2:
            self._out += h2.window_update(0, self._taken_bytes)
            self._taken_bytes = 0
        stream = self._streams.get(frame.stream_id)
        if stream is None:  # cancelled, and the server has not heard of it yet
            return
        content = h2.content_of(frame)
        try:
            stream.receive(content, stamp_s)
        except Exception as error:  # whatever a caller makes of his message is his to know
            self._reset(stream, error)
            return
        if frame.flags & h2.END_STREAM:
            self._end_by_server(stream)
            return
        stream.taken_bytes += size
        if stream.taken_bytes >= STREAM_WINDOW_BYTES // 2:
            self._out += h2.window_update(frame.stream_id, stream.taken_bytes)
            stream.taken_bytes = 0

    def _on_other(self, frame: h2.Frame) -> None:
        kind = frame.kind
        if self._block is not None or kind == h2.CONTINUATION:
            self._on_continuation(frame)
        elif kind == h2.SETTINGS:
            self._on_settings(frame)
        elif not self.ready.done():
            raise h2.FrameError("it does not begin with SETTINGS")
        elif kind == h2.HEADERS:
            self._block = (frame, bytearray(h2.content_of(frame)))
            self._end_block(frame)
        elif kind == h2.RST_STREAM:
            stream = self._streams.get(frame.stream_id)
            if stream is not None:
                self._end(stream, failure_of_reset(h2.number_of(frame.payload)))
        elif kind == h2.WINDOW_UPDATE:
            self._on_window_update(frame)
        elif kind == h2.PING and not frame.flags & h2.ACK:
            self._out += h2.frame(h2.PING, h2.ACK, 0, frame.payload)
        elif kind == h2.GOAWAY:
            self._on_goaway(h2.number_of(frame.payload) & h2.STREAM_ID_MAX)
        elif kind == h2.PUSH_PROMISE:
            raise h2.FrameError("a PUSH_PROMISE, which was refused")

    def _on_continuation(self, frame: h2.Frame) -> None:
        if (
            self._block is None
            or frame.kind != h2.CONTINUATION
            or frame.stream_id != self._block[0].stream_id
        ):
            raise h2.FrameError("a CONTINUATION frame where none may be, or none where one must be")
        self._block[1].extend(frame.payload)
        if len(self._block[1]) > HEADER_BYTES_MAX:
            raise h2.FrameError("too many headers")
        self._end_block(frame)

    def _end_block(self, frame: h2.Frame) -> None:
        """The headers are whole, if this frame says so."""
        if not frame.flags & h2.END_HEADERS or self._block is None:
            return
        first, block = self._block
        self._block = None
        headers: list[Header] = self._headers.decode(bytes(block))  # whoever it is for
        stream = self._streams.get(first.stream_id)
        if stream is not None:
            stream.receive_headers(headers)
            if first.flags & h2.END_STREAM:
                self._end_by_server(stream)

    def _on_settings(self, frame: h2.Frame) -> None:
        if frame.flags & h2.ACK:
            return
        for name, value in h2.settings_of(frame.payload):
            if name == h2.MAX_CONCURRENT_STREAMS:
                self._streams_max = value
            elif name == h2.MAX_FRAME_SIZE:
                self._frame_bytes_max = max(value, h2.FRAME_BYTES_MAX)
            elif name == h2.INITIAL_WINDOW_SIZE:
                more_bytes = value - self._stream_window_bytes
                self._stream_window_bytes = value
                for stream in self._streams.values():
                    stream.send_window_bytes += more_bytes
        self._out += h2.frame(h2.SETTINGS, h2.ACK, 0)
        if not self.ready.done():
            self.ready.set_result(None)
        self._send_waiting()

    def _on_window_update(self, frame: h2.Frame) -> None:
        more_bytes = h2.number_of(frame.payload) & h2.WINDOW_BYTES_MAX
        if frame.stream_id == 0:
            self._window_bytes += more_bytes
        elif (stream := self._streams.get(frame.stream_id)) is not None:
            stream.send_window_bytes += more_bytes
        self._send_waiting()

    def _on_goaway(self, last_id: int) -> None:
        """The server leaves: it ends the calls up to `last_id`, and has not begun the others."""
        self._is_leaving = True
        for stream in [one for number, one in self._streams.items() if number > last_id]:
            failure = CallFailedError(grpc.StatusCode.UNAVAILABLE, "the server is going away")
            self._end(stream, failure)
        self._close_if_left()

    def _send_waiting(self) -> None:
        for stream in list(self._waiting.values()):
            if self._window_bytes <= 0:
                break
            self._send(stream)

    def _send(self, stream: Stream) -> None:
        """As much of a request as the server takes now."""
        while stream.unsent:
            size = min(
                len(stream.unsent),
                stream.send_window_bytes,
                self._window_bytes,
                self._frame_bytes_max,
            )
            if size <= 0:
                self._waiting[stream.stream_id] = stream
                return
            piece, stream.unsent = stream.unsent[:size], stream.unsent[size:]
            stream.send_window_bytes -= size
            self._window_bytes -= size
            flags = 0 if stream.unsent else h2.END_STREAM
            self._out += h2.frame(h2.DATA, flags, stream.stream_id, bytes(piece))
        self._waiting.pop(stream.stream_id, None)

    def _flush(self) -> None:
        if self._transport is not None and self._out:
            self._transport.write(bytes(self._out))
        self._out.clear()

    def _end_by_server(self, stream: Stream) -> None:
        if stream.unsent:  # it has heard enough
            self._out += h2.reset(stream.stream_id, h2.NO_ERROR)
        self._forget(stream)
        stream.end_by_server()

    def _end(self, stream: Stream, failure: Exception) -> None:
        self._forget(stream)
        stream.end(failure)

    def _reset(self, stream: Stream, failure: Exception | None) -> None:
        """Ends a call that its server has not ended."""
        if stream.stream_id not in self._streams:
            return
        self._out += h2.reset(stream.stream_id, h2.CANCEL)
        self._flush()
        self._forget(stream)
        stream.end(failure)

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.stream_id, None)
        self._waiting.pop(stream.stream_id, None)
        self._close_if_left()

    def _close_if_left(self) -> None:
        if self._is_leaving and not self._streams and self._transport is not None:
            self._transport.close()

    def _watch(self) -> None:
        """Pings a server from which nothing comes while calls wait for it."""
        loop = asyncio.get_running_loop()
        self._keepalive = loop.call_later(KEEPALIVE_S, self._ping)

    def _ping(self) -> None:
        quiet_s = monotonic_s() - self._received_s
        if not self._streams or quiet_s < KEEPALIVE_S:
            self._watch()
            return
        self._out += h2.frame(h2.PING, 0, 0, bytes(8))
        self._flush()
        loop = asyncio.get_running_loop()
        self._keepalive = loop.call_later(KEEPALIVE_ANSWER_S, self._check_answer, self._received_s)

    def _check_answer(self, received_s: float) -> None:
        if self._received_s == received_s:
            self._lose("the server does not answer a ping")
        else:
            self._watch()

    def _lose(self, why: str) -> None:
        self._fail(grpc.StatusCode.UNAVAILABLE, why)

    def _fail(self, code: grpc.StatusCode, why: str) -> None:
        """Ends all calls and the connection."""
        if self._keepalive is not None:
            self._keepalive.cancel()
            self._keepalive = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))
            self.ready.exception()  # seen: there may be nobody left who waits for it
        streams = list(self._streams.values())
        self._streams.clear()
        self._waiting.clear()
        for stream in streams:
            stream.end(CallFailedError(code, why))
