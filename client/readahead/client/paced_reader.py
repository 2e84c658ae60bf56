"""A reader who takes an answer's text at his own pace, for blocking code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from readahead.client.errors import ReadaheadClientError
from readahead.client.events import Delta, Finished
from readahead.client.pacing import PacedText
from readahead.client.reading import Stall

if TYPE_CHECKING:
    from readahead.client.stream import Stream


class PacedReader:
    """Gives text at the reader's pace, reports his progress and logs his stalls.

    Use it as `with stream.read_at(6) as reader`, then iterate over it in one thread. Two threads
    of its own take frames in as they come and send reports, so neither waits for the reader, nor
    he for them. A progress report is a hint: when one fails, the answer goes on, and none
    follows.
    """

    def __init__(
        self,
        stream: Stream,
        text: PacedText,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._text = text
        self._clock = clock
        self._sleep = sleep
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._to_report: int | None = None
        self._can_report = True
        self._is_over = False
        self._error: ReadaheadClientError | None = None
        self.finished: Finished | None = None
        """The answer's last event, once it has come; text may still be unread then."""

    @property
    def stalls(self) -> list[Stall]:
        """His waits that are over, oldest first; the one for the first token included."""
        with self._lock:
            return list(self._text.buffer.stalls)

    @property
    def idle_s(self) -> float:
        """Seconds that he has waited for text in all."""
        with self._lock:
            return self._text.buffer.idle_s(self._clock())

    @property
    def unread_tokens(self) -> int:
        """Arrived, and he has not come to them yet."""
        with self._lock:
            return self._text.buffer.unread_tokens(self._clock())

    @property
    def slack_s(self) -> float:
        """Seconds until nothing is left to read."""
        with self._lock:
            return self._text.buffer.slack_s(self._clock())

    @property
    def tokens_read(self) -> int:
        """Tokens that he has come to, the one he reads included."""
        with self._lock:
            return self._text.tokens_read

    def __enter__(self) -> Self:
        for work in (self._receive, self._send_reports):
            thread = threading.Thread(target=work, name=f"readahead-{work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.cancel()
        with self._lock:
            self._can_report = False
            self._progress.notify()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        assert self._threads, "a paced reader is entered with `with` first"
        while (wanted_at_s := self._wait_for_text()) is not None:
            self._sleep_until(wanted_at_s)
            with self._lock:
                piece = self._text.take()
                self._report(self._text.report(self._clock()))
            if piece:
                return piece
        self._sleep_until(self._text.free_at_s)
        with self._lock:
            tokens_read = self._text.last_report() if self._can_report else None
        if tokens_read is not None:
            self._send_report(tokens_read)
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _wait_for_text(self) -> float | None:
        """When the next piece is wanted; None once there is no more."""
        with self._lock:
            while self._text.wanted_at_s is None and not self._is_over:
                self._news.wait()
            return self._text.wanted_at_s

    def _sleep_until(self, at_s: float) -> None:
        wait_s = at_s - self._clock()
        if wait_s > 0:
            self._sleep(wait_s)

    def _receive(self) -> None:
        try:
            for event in self._stream:
                if isinstance(event, Delta):
                    with self._lock:
                        self._text.arrive(event.text, len(event.token_ids), now=self._clock())
                        self._news.notify()
                elif isinstance(event, Finished):
                    self.finished = event
        except ReadaheadClientError as error:
            self._error = error
        finally:
            with self._lock:
                self._text.buffer.end(is_complete=self.finished is not None, now=self._clock())
                self._is_over = True
                self._news.notify()

    def _report(self, tokens_read: int | None) -> None:
        if tokens_read is not None:
            self._to_report = tokens_read
            self._progress.notify()

    def _send_reports(self) -> None:
        """One at a time, always the latest: a slow router gets fewer."""
        while True:
            with self._lock:
                while self._can_report and self._to_report is None:
                    self._progress.wait()
                tokens_read, self._to_report = self._to_report, None
                if not self._can_report or tokens_read is None:
                    return
            self._send_report(tokens_read)

    def _send_report(self, tokens_read: int) -> None:
        try:
            self._stream.report_reading(tokens_read)
        except ReadaheadClientError:
            with self._lock:
                self._can_report = False
