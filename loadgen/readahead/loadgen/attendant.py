"""Plays a request's reader in real time: tells of his progress, and says when he leaves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from readahead.workload.reading_run import Leaving, ReaderRun


class Attendant:
    """Keeps one timer for a reader, set for what he does next if no text comes before.

    Text moves that moment later, so the timer looks again when it fires instead of being set
    anew for each token. Only where he has read enough does it come sooner. Times are seconds from
    the run's start.
    """

    def __init__(
        self,
        run: ReaderRun,
        *,
        clock: Callable[[], float],
        leave: Callable[[Leaving], None],
        report: Callable[[int], None] | None,
    ) -> None:
        """Begins to attend.

        Args:
            run: the reader.
            clock: now.
            leave: called once, when he leaves.
            report: called with his position when a report is due. None: no one listens.
        """
        self._run = run
        self._clock = clock
        self._leave = leave
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._knows_end = False
        self._arm()

    def on_tokens(self, tokens: int, at_s: float) -> None:
        """Text has come."""
        run = self._run
        run.deliver(tokens, now=at_s)
        if not self._knows_end and run.read_enough_s < math.inf:
            self._knows_end = True
            self._arm()

    def close(self) -> None:
        """Nobody attends any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        self.close()
        next_s = self._run.leaves_at_s
        if self._report is not None:
            next_s = min(next_s, self._run.next_report_s)
        if next_s < math.inf:
            self._timer = self._loop.call_later(max(0.0, next_s - self._clock()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now_s = self._clock()
        if now_s >= self._run.leaves_at_s:
            self._leave(self._run.leaves_because)
            return
        if self._report is not None:
            position = self._run.report(now_s)
            if position is not None:
                self._report(position)
        self._arm()
