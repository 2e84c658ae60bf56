"""Shows a run while it runs: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.report import progress_line

PLAIN_S = 10.0
"""Between two lines where nothing can be overwritten, as in a log."""


class Progress:
    """Draws when told to: the runner knows when there is time for it."""

    def __init__(self, console: Console, *, requests: int) -> None:
        self._console = console
        self._requests = requests
        self._live = Live(Text("starting"), console=console, auto_refresh=False, transient=True)
        self._printed_s = 0.0

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
        line = progress_line(counts, now_s, requests=self._requests)
        if self._console.is_terminal:
            self._live.update(line, refresh=True)
        elif now_s - self._printed_s >= PLAIN_S:
            self._printed_s = now_s
            self._console.print(line)
