"""One request while it runs: what came, and when it was received."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from readahead.loadgen.live import LiveCounts

UNKNOWN = -1
"""Tokens of a frame of which the server does not say how many it holds."""


class Timeline:
    """The frames of one request that have text or tokens. Times are seconds from the run's start.

    In arrays of numbers, which no garbage collection walks: a run has millions of them.
    """

    __slots__ = (
        "_arrival_s",
        "_counts",
        "_keeps_answer",
        "_on_tokens",
        "_start_s",
        "characters",
        "prompt_tokens",
        "text",
        "times_s",
        "token_ids",
        "tokens",
    )

    def __init__(
        self,
        *,
        arrival_s: float,
        start_s: float = 0.0,
        counts: LiveCounts,
        on_tokens: Callable[[int, float], None] | None = None,
        keeps_answer: bool = False,
    ) -> None:
        """Starts empty.

        Args:
            arrival_s: the request's, from the run's start.
            start_s: the run's start on the clock of the stamps.
            counts: told of each frame.
            on_tokens: told of each frame's tokens and time; a frame of unknown content counts one.
            keeps_answer: the text and ids are wanted, as a later turn goes on from them.
        """
        self._arrival_s = arrival_s
        self._start_s = start_s
        self._counts = counts
        self._on_tokens = on_tokens
        self._keeps_answer = keeps_answer
        self.times_s = array("d")
        self.tokens = array("i")
        """Of each frame; `UNKNOWN` where the server does not say."""
        self.characters = array("i")
        self.prompt_tokens: int | None = None
        """As the server counts them, where it says so before the end."""
        self.text: list[str] = []
        self.token_ids: list[int] = []

    def mark(
        self, stamp_s: float, *, tokens: int | None, text: str, token_ids: Sequence[int] = ()
    ) -> None:
        """A frame was received at `stamp_s`, on the machine's monotonic clock."""
        at_s = stamp_s - self._start_s
        counts = self._counts
        if not self.times_s:
            counts.first_token(at_s - self._arrival_s)
        counted = 1 if tokens is None else tokens
        counts.tokens += counted
        self.times_s.append(at_s)
        self.tokens.append(UNKNOWN if tokens is None else tokens)
        self.characters.append(len(text))
        if self._keeps_answer:
            self.text.append(text)
            self.token_ids.extend(token_ids)
        if self._on_tokens is not None:
            self._on_tokens(counted, at_s)


def token_counts(
    tokens: Sequence[int], characters: Sequence[int], *, output_tokens: int | None
) -> tuple[Sequence[int], bool]:
    """Tokens in each frame, and whether that is an estimate.

    Where the server says nothing of frames, one frame is one token if the totals agree with
    that; else each frame has one and the rest is spread over the frames by their characters,
    in running sums, so that the counts add up to the total.
    """
    frames = len(tokens)
    if UNKNOWN not in tokens:
        return tokens, False
    if output_tokens is None:
        return [1] * frames, True
    if output_tokens == frames:
        return [1] * frames, False
    total = sum(characters)
    if not total:
        return [output_tokens, *([0] * (frames - 1))], True
    least = 1 if output_tokens > frames else 0
    rest = output_tokens - least * frames
    counts, done, seen = [], 0, 0
    for of_frame in characters:
        seen += of_frame
        upto = round(rest * seen / total)
        counts.append(least + upto - done)
        done = upto
    return counts, True
