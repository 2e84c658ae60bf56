"""Says what is going on while a cluster starts."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.status import Status

from readahead.runtime.clock import monotonic_s


class Progress:
    """A spinner on a terminal, plain lines elsewhere. One step at a time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = monotonic_s()
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def doing(self, text: str) -> None:
        """Something began that takes a while."""
        if self._status is not None:
            self._status.update(f"{text} …")
        else:
            self._line("…", text)

    def done(self, text: str) -> None:
        """Something is complete."""
        self._line("✓", text)

    def ready(self) -> None:
        """Nothing more to wait for: the spinner goes, what follows is said in lines."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _line(self, sign: str, text: str) -> None:
        elapsed_s = monotonic_s() - self._started
        self._console.print(
            f"{elapsed_s:6.1f} s  {sign} {text}", highlight=False, markup=False, soft_wrap=True
        )
