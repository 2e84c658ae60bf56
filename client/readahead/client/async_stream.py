"""An answer as it comes, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

import grpc.aio

from readahead.client.answer import Answer, Collector
from readahead.client.async_paced_reader import AsyncPacedReader
from readahead.client.clock import monotonic_s
from readahead.client.errors import CancelledError_, ReadaheadClientError
from readahead.client.events import Completion, Delta, Event
from readahead.client.pacing import REPORT_EVERY_S, PacedText
from readahead.v1 import inference_service_pb2 as pb


class AsyncGenerateCall(Protocol):
    """A running Generate RPC."""

    async def read(self) -> object:
        """The next frame, or `grpc.aio.EOF`."""
        ...

    def cancel(self) -> bool: ...


AsyncOpener = Callable[[pb.GenerateRequest, float | None], AsyncGenerateCall]
"""Starts the RPC for a request, with this many seconds to go."""


class AsyncStream:
    """One answer. Iterate over it for events, over `text()` for text, or `collect()` it.

    Leaving its `async with` block, `cancel()`, or cancelling the task that reads it ends the
    request everywhere. After `cancel()`, iteration ends without an error.
    """

    def __init__(
        self,
        answer: Answer,
        open_call: AsyncOpener,
        *,
        report_reading: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._answer = answer
        self._open_call = open_call
        self._report_reading = report_reading
        self._cancelled = asyncio.Event()
        self._has_ended = False
        self._call = open_call(answer.request, answer.remaining_s(monotonic_s()))

    @property
    def request_id(self) -> str:
        """The id to use with `cancel`, `explain` and `report_reading`."""
        return self._answer.request_id

    @property
    def tokens_delivered(self) -> int:
        """Tokens that have come so far."""
        return self._answer.tokens_delivered

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._has_ended:
            try:
                event = await self._next()
            except grpc.aio.AioRpcError as failure:
                await self._recover(failure)
            except ReadaheadClientError:
                self._has_ended = True
                self._call.cancel()
                raise
            except asyncio.CancelledError:
                self.cancel()
                raise
            else:
                if event is not None:
                    return event
        raise StopAsyncIteration

    async def text(self) -> AsyncIterator[str]:
        """The answer's text, piece by piece; no piece is empty."""
        async for event in self:
            if isinstance(event, Delta) and event.text:
                yield event.text

    def read_at(
        self,
        pace_tok_s: float,
        *,
        report_every_s: float | None = REPORT_EVERY_S,
        clock: Callable[[], float] = monotonic_s,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> AsyncPacedReader:
        """The answer's text as a reader takes it who asks now, for an `async with` block.

        Args:
            pace_tok_s: tokens per second that he reads.
            report_every_s: the router is told of his progress this often at most. None: never.
            clock: seconds; never goes back.
            sleep: waits for so many seconds of that clock.

        Raises:
            ValueError: a pace or a time between reports that cannot be.
        """
        text = PacedText(pace_tok_s, asked_at_s=clock(), report_every_s=report_every_s)
        return AsyncPacedReader(self, text, clock=clock, sleep=sleep)

    async def collect(self) -> Completion:
        """Waits for the rest of the answer and returns what came during this call.

        After the caller's own `cancel()`, that is what came before it, with
        `finish_reason` "cancelled".
        """
        collector = Collector()
        async for event in self:
            collector.add(event)
        return collector.completion(self.request_id)

    def cancel(self) -> None:
        """Ends the request. Safe at any time, more than once."""
        self._cancelled.set()
        self._call.cancel()

    async def report_reading(self, tokens_read: int) -> None:
        """Tells the router how many of the answer's tokens the user has read so far."""
        await self._report_reading(self.request_id, tokens_read)

    async def _next(self) -> Event | None:
        try:
            frame = await self._call.read()
        except asyncio.CancelledError:
            # grpc.aio says so both when this task is cancelled and when the call is. Only the
            # first may go on as a cancellation.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._has_ended = True
            if self._cancelled.is_set() or self._answer.is_finished:
                return None
            raise CancelledError_(
                "CANCELLED", "the client was closed", request_id=self.request_id
            ) from None
        if isinstance(frame, pb.GenerateResponse):
            return self._answer.take(frame)
        self._has_ended = True
        if not self._answer.is_finished and not self._cancelled.is_set():
            raise self._answer.truncated()
        return None

    async def _recover(self, failure: grpc.aio.AioRpcError) -> None:
        """Makes ready for the next try, or ends the stream, with an error unless all is well."""
        if self._cancelled.is_set() or self._answer.is_finished:
            self._has_ended = True
            return
        error = self._answer.error(failure)
        wait_s = self._answer.next_delay_s(error, now=monotonic_s())
        if wait_s is None:
            self._has_ended = True
            raise error from failure
        try:
            async with asyncio.timeout(wait_s):
                await self._cancelled.wait()
        except TimeoutError:
            self._call = self._open_call(
                self._answer.request, self._answer.remaining_s(monotonic_s())
            )
        else:
            self._has_ended = True
