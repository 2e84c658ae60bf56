"""Notices clients that take no bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from readahead.runtime.clock import monotonic_s

_LOOKS_PER_LIMIT = 4
"""A stalled client is given up at most a quarter of the limit late."""

log = structlog.get_logger()


class StallWatch:
    """Cancels tasks whose write has been blocked for too long.

    One look over all streams from time to time costs less than a timeout around every frame.
    """

    def __init__(self, limit_s: float, *, now: Callable[[], float] = monotonic_s) -> None:
        self._limit_s = limit_s
        self._now = now
        self._writing: dict[asyncio.Task[Any], float] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await asyncio.sleep(self._limit_s / _LOOKS_PER_LIMIT)
            self.look()

    def look(self) -> None:
        """Cancels those that are over the limit."""
        now = self._now()
        for task, since in list(self._writing.items()):
            if now - since >= self._limit_s:
                del self._writing[task]
                log.warning("client_stalled", stalled_s=round(now - since, 3))
                task.cancel()

    @contextmanager
    def watched(self) -> Iterator[Callable[[Awaitable[None]], Awaitable[None]]]:
        """Gives a function that awaits one write of this task under the watch."""
        task = asyncio.current_task()
        assert task is not None
        writing, now = self._writing, self._now

        async def write(pending: Awaitable[None]) -> None:
            writing[task] = now()
            await pending
            del writing[task]

        try:
            yield write
        finally:
            writing.pop(task, None)
