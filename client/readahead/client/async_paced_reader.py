"""A reader who takes an answer's text at his own pace, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from readahead.client.errors import ReadaheadClientError
from readahead.client.events import Delta, Finished
from readahead.client.pacing import PacedText
from readahead.client.reading import Stall

if TYPE_CHECKING:
    from readahead.client.async_stream import AsyncStream


class AsyncPacedReader:
    """Gives text at the reader's pace, reports his progress and logs his stalls.

    Use it as `async with stream.read_at(6) as reader`, then iterate over it. Frames are taken in
    as they come, whatever the pace, so the router is not slowed down. A progress report is a
    hint: when one fails, the answer goes on, and none follows.
    """

    def __init__(
        self,
        stream: AsyncStream,
        text: PacedText,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._stream = stream
        self._text = text
        self._clock = clock
        self._sleep = sleep
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._progress = asyncio.Event()
        self._to_report = 0
        self._is_over = False
        self._error: ReadaheadClientError | None = None
        self.finished: Finished | None = None
        """The answer's last event, once it has come; text may still be unread then."""

    @property
    def stalls(self) -> list[Stall]:
        """His waits that are over, oldest first; the one for the first token included."""
        return self._text.buffer.stalls

    @property
    def idle_s(self) -> float:
        """Seconds that he has waited for text in all."""
        return self._text.buffer.idle_s(self._clock())

    @property
    def unread_tokens(self) -> int:
        """Arrived, and he has not come to them yet."""
        return self._text.buffer.unread_tokens(self._clock())

    @property
    def slack_s(self) -> float:
        """Seconds until nothing is left to read."""
        return self._text.buffer.slack_s(self._clock())

    @property
    def tokens_read(self) -> int:
        """Tokens that he has come to, the one he reads included."""
        return self._text.tokens_read

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._running = [
            self._tasks.create_task(self._receive()),
            self._tasks.create_task(self._send_reports()),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.cancel()
        for task in self._running:
            task.cancel()
        # Told of no error: it is the caller's own, and a group would wrap it.
        await self._tasks.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        assert self._running, "a paced reader is entered with `async with` first"
        while True:
            wanted_at_s = self._text.wanted_at_s
            if wanted_at_s is None and self._is_over:
                break
            if wanted_at_s is None:
                self._news.clear()
                await self._news.wait()
                continue
            await self._sleep_until(wanted_at_s)
            piece = self._text.take()
            self._report(self._text.report(self._clock()))
            if piece:
                return piece
        await self._sleep_until(self._text.free_at_s)
        await self._report_last()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def _sleep_until(self, at_s: float) -> None:
        wait_s = at_s - self._clock()
        if wait_s > 0:
            await self._sleep(wait_s)

    async def _receive(self) -> None:
        try:
            async for event in self._stream:
                if isinstance(event, Delta):
                    self._text.arrive(event.text, len(event.token_ids), now=self._clock())
                    self._news.set()
                elif isinstance(event, Finished):
                    self.finished = event
        except ReadaheadClientError as error:
            self._error = error
        finally:
            self._text.buffer.end(is_complete=self.finished is not None, now=self._clock())
            self._is_over = True
            self._news.set()

    def _report(self, tokens_read: int | None) -> None:
        if tokens_read is not None:
            self._to_report = tokens_read
            self._progress.set()

    async def _send_reports(self) -> None:
        """One at a time, always the latest: a slow router gets fewer."""
        while True:
            await self._progress.wait()
            self._progress.clear()
            if not await self._send_report(self._to_report):
                return

    async def _report_last(self) -> None:
        tokens_read = self._text.last_report()
        if tokens_read is not None and not self._running[1].done():
            await self._send_report(tokens_read)

    async def _send_report(self, tokens_read: int) -> bool:
        try:
            await self._stream.report_reading(tokens_read)
        except ReadaheadClientError:
            return False
        return True
