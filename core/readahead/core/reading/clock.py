"""How far one reader is, and when he runs out of text."""

from __future__ import annotations


class ReadingClock:
    """A reader who reads at a steady pace and, where he stalled, goes on from there.

    The i-th token is read from s_i = max(t_i, s_(i-1) + 1/pace), t_i being its delivery; the
    clock keeps the end of that recursion, so each delivery costs O(1).

    Ref: [SmoothGoodput] Eq. 9, the user's idle time; unrolled, the recursion's stalls sum to it.
    """

    __slots__ = ("_pace_tok_s", "_reads_until")

    def __init__(self, *, pace_tok_s: float) -> None:
        self._pace_tok_s = pace_tok_s
        self._reads_until = float("-inf")

    def deliver(self, tokens: int, *, now: float) -> None:
        """Gives the reader more text."""
        self._reads_until = max(self._reads_until, now) + tokens / self._pace_tok_s

    def slack_s(self, now: float) -> float:
        """Seconds until nothing is left to read; negative while he waits, -inf before any text."""
        return self._reads_until - now
