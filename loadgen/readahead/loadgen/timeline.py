"""One request while it runs: frames are stamped as they are received."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.loadgen.live import LiveCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame with text or tokens."""

    at_s: float
    tokens: int | None
    """None: the server does not say."""
    characters: int


class Timeline:
    """The frames of one request."""

    def __init__(self, *, arrival_s: float, clock: Callable[[], float], counts: LiveCounts) -> None:
        self._arrival_s = arrival_s
        self._clock = clock
        self._counts = counts
        self.frames: list[Frame] = []

    def mark(self, *, tokens: int | None, characters: int) -> None:
        """A frame has just been received."""
        at_s = self._clock()
        if not self.frames:
            self._counts.first_token(at_s - self._arrival_s)
        self._counts.tokens += 1 if tokens is None else tokens
        self.frames.append(Frame(at_s=at_s, tokens=tokens, characters=characters))


def token_counts(frames: Sequence[Frame], *, output_tokens: int | None) -> tuple[list[int], bool]:
    """Tokens in each frame, and whether that is an estimate.

    Where the server says nothing of frames, one frame is one token if the totals agree with
    that; else each frame has one and the rest is spread over the frames by their characters,
    in running sums, so that the counts add up to the total.
    """
    known = [frame.tokens for frame in frames if frame.tokens is not None]
    if len(known) == len(frames):
        return known, False
    if output_tokens is None or not frames:
        return [1] * len(frames), True
    if output_tokens == len(frames):
        return [1] * len(frames), False
    characters = sum(frame.characters for frame in frames)
    if not characters:
        return [output_tokens, *([0] * (len(frames) - 1))], True
    least = 1 if output_tokens > len(frames) else 0
    rest = output_tokens - least * len(frames)
    counts, done, seen = [], 0, 0
    for frame in frames:
        seen += frame.characters
        upto = round(rest * seen / characters)
        counts.append(least + upto - done)
        done = upto
    return counts, True
