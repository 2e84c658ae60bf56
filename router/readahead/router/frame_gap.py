"""When a client gets its next frame: at once, unless its reader has text left for seconds."""

from __future__ import annotations

from readahead.core.reading.clock import ReadingClock

SLACK_SHARE = 0.05
"""Most of a reader's slack that a frame may wait: he is never made to wait himself, and a buffer
that runs low gets each token at once."""


class FrameGap:
    """Spaces one client's frames.

    A frame costs the router some ten times what a token in it costs, most of that in gRPC. While
    the reader has text left, tokens of a few engine steps share a frame; the last frame never
    waits.
    """

    __slots__ = ("_clock", "_framed_at", "_gap_s_max")

    def __init__(self, *, pace_tok_s: float, gap_s_max: float) -> None:
        self._clock = ReadingClock(pace_tok_s=pace_tok_s)
        self._gap_s_max = gap_s_max
        self._framed_at = float("-inf")

    def deliver(self, tokens: int, *, now: float) -> None:
        """More text is there for the reader."""
        self._clock.deliver(tokens, now=now)

    def frame(self, now: float) -> None:
        """The client takes a frame."""
        self._framed_at = now

    def wait_s(self, now: float) -> float:
        """How long the next frame should still wait; 0 or less for not at all."""
        if not self._gap_s_max:
            return 0.0
        gap_s = min(self._gap_s_max, SLACK_SHARE * self._clock.slack_s(now))
        return self._framed_at + gap_s - now
