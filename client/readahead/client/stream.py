"""An answer as it comes, for blocking code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

import grpc

from readahead.client.answer import Answer, Collector
from readahead.client.clock import monotonic_s, sleep_s
from readahead.client.events import Completion, Delta, Event
from readahead.client.paced_reader import PacedReader
from readahead.client.pacing import REPORT_EVERY_S, PacedText
from readahead.v1 import inference_service_pb2 as pb


class GenerateCall(Protocol):
    """A running Generate RPC."""

    def __next__(self) -> pb.GenerateResponse: ...

    def cancel(self) -> bool: ...


Opener = Callable[[pb.GenerateRequest, float | None], GenerateCall]
"""Starts the RPC for a request, with this many seconds to go."""


class Stream:
    """One answer. Iterate over it for events, over `text()` for text, or `collect()` it.

    Leaving its `with` block, or `cancel()` from any thread, ends the request everywhere.
    After the caller's own cancel, iteration ends without an error.
    """

    def __init__(
        self,
        answer: Answer,
        open_call: Opener,
        *,
        report_reading: Callable[[str, int], None],
    ) -> None:
        self._answer = answer
        self._open_call = open_call
        self._report_reading = report_reading
        self._cancelled = threading.Event()
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        while not self._has_ended:
            try:
                event = self._answer.take(next(self._call))
            except StopIteration:
                self._has_ended = True
                if not self._answer.is_finished and not self._cancelled.is_set():
                    raise self._answer.truncated() from None
            except grpc.RpcError as failure:
                self._recover(failure)
            except BaseException:  # KeyboardInterrupt included: nobody reads on after it
                self.cancel()
                raise
            else:
                if event is not None:
                    return event
        raise StopIteration

    def text(self) -> Iterator[str]:
        """The answer's text, piece by piece; no piece is empty."""
        return (event.text for event in self if isinstance(event, Delta) and event.text)

    def read_at(
        self,
        pace_tok_s: float,
        *,
        report_every_s: float | None = REPORT_EVERY_S,
        clock: Callable[[], float] = monotonic_s,
        sleep: Callable[[float], None] = sleep_s,
    ) -> PacedReader:
        """The answer's text as a reader takes it who asks now, for a `with` block.

        Args:
            pace_tok_s: tokens per second that he reads.
            report_every_s: the router is told of his progress this often at most. None: never.
            clock: seconds; never goes back.
            sleep: waits for so many seconds of that clock.

        Raises:
            ValueError: a pace or a time between reports that cannot be.
        """
        text = PacedText(pace_tok_s, asked_at_s=clock(), report_every_s=report_every_s)
        return PacedReader(self, text, clock=clock, sleep=sleep)

    def collect(self) -> Completion:
        """Waits for the rest of the answer and returns what came during this call.

        After the caller's own `cancel()`, that is what came before it, with
        `finish_reason` "cancelled".
        """
        collector = Collector()
        for event in self:
            collector.add(event)
        return collector.completion(self.request_id)

    def cancel(self) -> None:
        """Ends the request. Safe at any time, from any thread, more than once."""
        self._cancelled.set()
        self._call.cancel()

    def report_reading(self, tokens_read: int) -> None:
        """Tells the router how many of the answer's tokens the user has read so far."""
        self._report_reading(self.request_id, tokens_read)

    def _recover(self, failure: grpc.RpcError) -> None:
        """Makes ready for the next try, or ends the stream, with an error unless all is well."""
        if self._cancelled.is_set() or self._answer.is_finished:
            self._has_ended = True
            return
        error = self._answer.error(failure)
        wait_s = self._answer.next_delay_s(error, now=monotonic_s())
        if wait_s is None:
            self._has_ended = True
            raise error from failure
        if self._cancelled.wait(wait_s):
            self._has_ended = True
            return
        self._call = self._open_call(self._answer.request, self._answer.remaining_s(monotonic_s()))
        if self._cancelled.is_set():  # it may have come while the call was being opened
            self._call.cancel()
