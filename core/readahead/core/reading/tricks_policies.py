"""The two tricks that make the usual numbers look better than what users get, to be shown at work.

Both are pure: a timeline as an honest system delivers it goes in, the gamed one comes out. Nothing
in the product delivers by them.

Ref: [SmoothGoodput] output delay and proactive abandonment.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from dataclasses import replace

from readahead.core.reading.curves import EPSILON_S, Curve
from readahead.core.reading.timeline import Outcome, Timeline


class OutputDelay:
    """Holds each token until the TBT threshold has passed since the last delivered one.

    The hoard of held tokens then hides stalls from the gaps, and nobody gets a token sooner. For
    a stream of one request: `make` when tokens come to be, `release` what may go by now.
    """

    __slots__ = ("_held", "_last_s", "_tbt_s")

    def __init__(self, *, tbt_s: float) -> None:
        if not 0 < tbt_s < math.inf:
            raise ValueError(f"tbt_s must be finite and > 0, is {tbt_s}")
        self._tbt_s = tbt_s
        self._last_s = -math.inf
        self._held: deque[float] = deque()

    @property
    def held_tokens(self) -> int:
        """The hoard."""
        return len(self._held)

    def make(self, *, now: float) -> None:
        """One more token exists."""
        self._held.append(now)

    def next_release_s(self) -> float:
        """When the next token goes; inf if there is none."""
        return max(self._held[0], self._last_s + self._tbt_s) if self._held else math.inf

    def release(self, *, now: float) -> list[float]:
        """The times at which tokens went, up to now."""
        released = []
        while self._held and (at := self.next_release_s()) <= now:
            self._held.popleft()
            self._last_s = at
            released.append(at)
        return released


def delay_output(timeline: Timeline, *, tbt_s: float) -> Timeline:
    """The timeline as the output delay makes it; tokens keep the times at which they existed.

    An end that the log states moves with the last token.
    """
    policy = OutputDelay(tbt_s=tbt_s)
    for at in timeline.token_times_s:
        policy.make(now=at)
    times_s = policy.release(now=math.inf)
    ended_s = timeline.ended_s
    if ended_s is not None and times_s:
        ended_s = max(ended_s, times_s[-1])
    made_times_s = timeline.made_times_s
    return replace(
        timeline,
        token_times_s=times_s,
        made_times_s=timeline.token_times_s if made_times_s is None else made_times_s,
        ended_s=ended_s,
    )


def missed_s(timeline: Timeline, curve: Curve) -> float | None:
    """When the request first missed its promise: the due time that passed without the token.

    None: it did not, or nothing says until when its user waited.
    """
    due_times_s = curve.due_times_s(timeline)
    for at, due_s in zip(timeline.token_times_s, due_times_s, strict=True):
        if at > due_s + EPSILON_S:
            return due_s
    if timeline.ended_normally:
        return None
    due_s = curve.next_due_s(timeline)
    return due_s if timeline.last_s > due_s + EPSILON_S else None


def abandon(timeline: Timeline, curve: Curve) -> Timeline:
    """The timeline as proactive abandonment makes it: over as soon as its promise is missed.

    With text delivered the answer is cut off, without it the request is dropped. What the time so
    freed is used for is not in one timeline; the queue of `tricks_queue` shows it.
    """
    end_s = missed_s(timeline, curve)
    if end_s is None:
        return timeline
    tokens = bisect_right(timeline.token_times_s, end_s)
    made_times_s = timeline.made_times_s
    return replace(
        timeline,
        token_times_s=timeline.token_times_s[:tokens],
        made_times_s=None if made_times_s is None else made_times_s[:tokens],
        outcome=Outcome.CANCELLED if tokens else Outcome.REJECTED,
        ended_s=end_s,
    )
