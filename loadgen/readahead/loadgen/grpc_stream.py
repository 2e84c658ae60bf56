"""One call on a connection: a request in one message, and the messages of its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from readahead.loadgen.grpc_frames import MessageError, MessageReader, MessageTooLargeError
from readahead.loadgen.grpc_hpack import Header
from readahead.loadgen.grpc_status import CallFailedError, failure_of_trailers

OnMessage = Callable[[bytes, float], bool]
"""Takes a message and the time at which its last byte was received; true: no more are of use."""


class Stream:
    """What is known of one call. `done` gets the failure, or None for a good end."""

    __slots__ = (
        "_headers",
        "_is_answer",
        "_messages",
        "_on_message",
        "_trailers",
        "done",
        "lingers",
        "send_window_bytes",
        "stream_id",
        "taken_bytes",
        "unsent",
    )

    def __init__(
        self,
        stream_id: int,
        request: bytes,
        on_message: OnMessage,
        *,
        send_window_bytes: int,
        message_bytes_max: int,
    ) -> None:
        self.stream_id = stream_id
        self.unsent = memoryview(request)
        """Of the request, waiting for the server to take it."""
        self.send_window_bytes = send_window_bytes
        """How much the server takes; negative after it changed its mind."""
        self.taken_bytes = 0
        """Received, and the server not told so."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lingers: asyncio.TimerHandle | None = None
        self._on_message = on_message
        self._messages = MessageReader(message_bytes_max)
        self._headers: list[Header] | None = None
        self._trailers: list[Header] | None = None
        self._is_answer = False  # else a page of a proxy's

    def receive(self, data: bytes, stamp_s: float) -> None:
        """A piece of the answer was received at `stamp_s`.

        Raises:
            Exception: of the callback; the call is of no use then.
        """
        if self.done.done():
            return
        if self._headers is None:
            raise CallFailedError(grpc.StatusCode.INTERNAL, "data came before any headers")
        if not self._is_answer:
            return
        try:
            for message in self._messages.feed(data):
                if self._on_message(message, stamp_s):
                    self.done.set_result(None)
                    return
        except MessageTooLargeError as error:
            raise CallFailedError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        except MessageError as error:
            raise CallFailedError(grpc.StatusCode.INTERNAL, str(error)) from error

    def receive_headers(self, headers: list[Header]) -> None:
        """Headers or trailers; those of an interim answer say nothing."""
        if self._headers is not None:
            self._trailers = headers
        elif not dict(headers).get(b":status", b"").startswith(b"1"):
            self._headers = headers
            self._is_answer = (b":status", b"200") in headers

    def end(self, failure: Exception | None) -> None:
        """The call is over: with this failure, or else well."""
        if self.lingers is not None:
            self.lingers.cancel()
            self.lingers = None
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)

    def end_by_server(self) -> None:
        """The server has said all: its last headers have the status."""
        self.end(failure_of_trailers(self._trailers or self._headers or []))
