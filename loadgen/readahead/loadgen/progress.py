"""Shows a run while it runs: a live panel on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.live_view import LiveHead, live_line, live_panel, live_state
from readahead.loadgen.records import Record

PLAIN_S = 10.0
"""Between two lines where nothing can be overwritten, as in a log."""


class Progress:
    """Draws when told to: the runner knows when there is time for it."""

    def __init__(self, console: Console, head: LiveHead) -> None:
        self._console = console
        self._head = head
        self._live = Live(Text("starting"), console=console, auto_refresh=False, transient=True)
        self._printed_s = 0.0
        self.records: Sequence[Record] = ()
        """Of the requests that are over; whoever runs them sets it."""

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def refresh(self, counts: LiveCounts, now_s: float) -> None:
        """Draws the run so far."""
        is_due = now_s - self._printed_s >= PLAIN_S
        if not (self._console.is_terminal or is_due):
            return
        state = live_state(counts, now_s, self.records)
        if self._console.is_terminal:
            panel = live_panel(self._head, state, width=self._console.width)
            self._live.update(panel, refresh=True)
        else:
            self._printed_s = now_s
            self._console.print(live_line(self._head, state), soft_wrap=True)
