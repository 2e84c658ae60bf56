"""What a user did with an answer, as samples of his pace.

The difficulty is the time in which he had nothing to read: it says nothing about him.
"""

from __future__ import annotations

from readahead.core.reading.pace_posterior import PaceSample

SCROLL_WEIGHT = 0.5
"""A scroll says which lines are past, a screen's worth coarser than a report."""

DWELL_WEIGHT = 0.25
"""Time on an answer up to the user's next act has thinking and typing in it."""

CANCEL_WEIGHT = 0.1
"""Who stops an answer has seen what it says, or cares no more."""

CANCEL_PACE_TOK_S_MAX = 10.0
"""Twice the usual: where it takes more than that to have seen all of a stopped answer, it was
more likely stopped unread."""

STARTS_MAX = 64
"""Most moments remembered at which he may have begun to read again, between two reports. One more
drops the second oldest: then a stall may count as reading."""

_Point = tuple[float, float]


class ReadingTracker:
    """Turns one answer's deliveries and reports into samples, stalls left out.

    Between two reports he reads r tokens at a steady pace v, and waits where he has none. If the
    last wait ended at time s, when the token after the first n came, then n + 1 + v (t - s)
    tokens are read at t; and no other moment gives fewer. So v = max over the deliveries of
    (r - n - 1) / (t - s): exact for a steady reader whatever the stalls, without knowing them.
    Of the deliveries only those on a lower convex hull can be the maximum, and no other is kept.

    As in the reading clock, a token is read as soon as he comes to it, and reports say the same.
    """

    __slots__ = ("_delivered", "_read", "_starts")

    def __init__(self) -> None:
        self._delivered = 0
        self._read = 0
        self._starts: list[_Point] = []

    def deliver(self, tokens: int, *, now: float) -> None:
        """He got more text."""
        if tokens <= 0:
            return
        point = (now, float(self._delivered + 1))
        self._delivered += tokens
        while len(self._starts) > 1 and _is_above(self._starts[-1], self._starts[-2], point):
            self._starts.pop()
        if len(self._starts) >= STARTS_MAX:
            del self._starts[1]
        self._starts.append(point)

    def acknowledge(self, tokens_read: int, *, now: float) -> PaceSample | None:
        """He has come to this many tokens. None if that says nothing about his pace.

        Where he has come to the end of his text, or to the first token of a delivery, he may have
        been waiting for any time: that stretch only shows a pace he reads at least, which is not
        a sample.
        """
        return self._until(tokens_read, now=now, weight=1.0)

    def scrolled(self, tokens_above: int, *, now: float) -> PaceSample | None:
        """This many tokens have left the screen at its top."""
        return self._until(tokens_above, now=now, weight=SCROLL_WEIGHT)

    def cancelled(self, *, now: float) -> PaceSample | None:
        """He stopped the answer. He is taken to have seen all of it, if one can."""
        sample = self._slowest(self._delivered, now=now, weight=CANCEL_WEIGHT)
        self._starts.clear()
        if sample is None or sample.tokens > CANCEL_PACE_TOK_S_MAX * sample.active_s:
            return None
        return sample if sample == sample.bounded() else None

    def _until(self, tokens_read: int, *, now: float, weight: float) -> PaceSample | None:
        tokens_read = min(tokens_read, self._delivered)
        if tokens_read <= self._read:
            return None
        sample = self._slowest(tokens_read, now=now, weight=weight)
        may_have_waited = any(n == tokens_read for _, n in self._starts)
        self._read = tokens_read
        self._starts = [(now, float(tokens_read))]
        has_text_left = tokens_read < self._delivered
        return sample if has_text_left and not may_have_waited else None

    def _slowest(self, tokens_read: int, *, now: float, weight: float) -> PaceSample | None:
        """What he read since the last report, at the slowest pace by which he could have."""
        paces = [(tokens_read - n) / (now - s) for s, n in self._starts if s < now]
        pace_tok_s = max(paces, default=0.0)
        if pace_tok_s <= 0:
            return None
        tokens = tokens_read - self._starts[0][1]
        return PaceSample(tokens=tokens, active_s=tokens / pace_tok_s, weight=weight)


def dwell_sample(tokens: int, *, dwell_s: float) -> PaceSample | None:
    """A whole answer, and the time from its first token to the user's next act.

    None where nobody reads like that: he was away, or did not read it.
    """
    if tokens <= 0 or dwell_s <= 0:
        return None
    sample = PaceSample(tokens=tokens, active_s=dwell_s, weight=DWELL_WEIGHT)
    return sample if sample == sample.bounded() else None


def _is_above(middle: _Point, left: _Point, right: _Point) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    rise_to_middle = (middle[1] - left[1]) * (right[0] - left[0])
    rise_to_right = (right[1] - left[1]) * (middle[0] - left[0])
    return rise_to_middle >= rise_to_right
