"""A growing answer on a terminal, with the reading buffer below it."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from readahead.client.events import Finished
from readahead.client.reading import ReadingBuffer


class Screen(Protocol):
    """Where one answer is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def add(self, text: str) -> None:
        """More of the answer."""
        ...

    def show(self, buffer: ReadingBuffer, now: float) -> None:
        """The reader's state."""
        ...

    def promised(self, finished: Finished) -> None:
        """What became of the answer's promise, if there was one."""
        ...


def buffer_line(buffer: ReadingBuffer, now: float) -> str:
    """The reading buffer in one line."""
    return (
        f"{buffer.tokens_delivered} tokens · {buffer.unread_tokens(now)} unread at "
        f"{buffer.pace_tok_s:g}/s · {buffer.slack_s(now):.1f} s left to read · "
        f"{buffer.idle_s(now):.1f} s waited"
    )


def promise_line(finished: Finished) -> str:
    """The promise in a few words; empty where there is nothing to say."""
    words = [finished.verdict] if finished.verdict else []
    if slo := finished.slo:
        kept = "kept" if slo.is_kept else f"late by {slo.late_s:.1f} s"
        words.insert(0, f"{slo.name}: first token within {slo.ttft_s:.2g} s, {kept}")
    return " · ".join(words)


class TerminalScreen:
    """Lines that cannot change any more go to the terminal's scroll-back; the last line of text
    and the buffer are redrawn below them, so that an answer may be longer than the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._tail = ""
        self._status = ""
        self._promise = ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()
        self._console.print(Text(self._tail))
        self._console.print(Text(self._status, style="dim"))
        if self._promise:
            self._console.print(Text(self._promise, style="dim"))

    def add(self, text: str) -> None:
        """More of the answer."""
        *lines, self._tail = (self._tail + text).split("\n")
        *wrapped, last = Text(self._tail).wrap(self._console, self._console.width) or [Text()]
        for line in (*map(Text, lines), *wrapped):
            self._console.print(line)
        if wrapped:
            # wrap() strips the space at a line's end, which the next word still needs.
            self._tail = last.plain + " " * self._tail.endswith(" ")
        self._draw()

    def show(self, buffer: ReadingBuffer, now: float) -> None:
        """The reader's state."""
        self._status = buffer_line(buffer, now)
        self._draw()

    def promised(self, finished: Finished) -> None:
        """What became of the promise, below the reader's state."""
        self._promise = promise_line(finished)

    def _draw(self) -> None:
        status = Text(self._status, style="dim", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(Text(self._tail), status), refresh=True)


class PlainScreen:
    """For pipes and files: the text and nothing else."""

    def __init__(self, console: Console) -> None:
        self._file = console.file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.add("\n")

    def add(self, text: str) -> None:
        """More of the answer."""
        self._file.write(text)
        self._file.flush()

    def show(self, buffer: ReadingBuffer, now: float) -> None:
        """Nothing: the output is the answer's text alone."""

    def promised(self, finished: Finished) -> None:
        """Nothing, for the same reason."""
