"""Proactive abandonment: requests that were ended because they had missed their SLO."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.reading.curves import Curve
from readahead.core.reading.timeline import Outcome, Timeline
from readahead.core.reading.tricks_policies import missed_s

AT_ONCE_S = 0.5
"""An end this soon after the miss: a few engine steps. Users take longer to give up."""

AT_ONCE_REQUESTS_MIN = 3
AT_ONCE_SHARE_MIN = 0.5
"""From then on it is a policy: at least so many, and at least so many of those that were ended
after a miss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutOff:
    """A request that did not come to its own end, after its promise was missed."""

    request_id: str
    tokens: int
    """Delivered before; 0: it was dropped."""
    waited_s: float
    """From its arrival to its end."""
    after_miss_s: float
    """From the miss to the end."""
    outcome: Outcome

    @property
    def is_at_once(self) -> bool:
        """Whether the miss can be the reason of the end. What failed had another."""
        return self.outcome is not Outcome.FAILED and self.after_miss_s <= AT_ONCE_S

    @property
    def evidence(self) -> str:
        """In words."""
        what = f"cut off after {self.tokens} tokens" if self.tokens else "dropped without a token"
        return f"{what}, {self.after_miss_s:.2f} s after it missed its SLO"


def cut_off(timeline: Timeline, slo: Curve) -> CutOff | None:
    """The request, if it was ended early and after the miss. None: it was not.

    One refused at once, before any promise could be missed, got an honest answer and is none.
    An answer cut off and logged as finished cannot be told from a short one.
    """
    if timeline.ended_normally or timeline.ended_s is None:
        return None
    miss_s = missed_s(timeline, slo)
    if miss_s is None:
        return None
    return CutOff(
        request_id=timeline.request_id,
        tokens=timeline.tokens,
        waited_s=timeline.last_s - timeline.arrival_s,
        after_miss_s=timeline.last_s - miss_s,
        outcome=timeline.outcome,
    )
