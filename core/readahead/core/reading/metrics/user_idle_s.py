"""How long one user had nothing to read."""

from __future__ import annotations

from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="user_idle_s",
    unit="seconds, per request",
    formula=(
        "l = max(0, max_i (t_i - d_i)), d_i = origin + offset + i / pace, "
        "over the tokens that are read: "
        "the total stall of a reader who resumes where he stopped"
    ),
    source="[SmoothGoodput] Eq. 5 and 9, clamped at 0",
    undefined="nobody reads the request; 0 without a token",
)


def user_idle_s(timeline: Timeline, curve: ReadingCurve) -> float:
    """The literal idle time: a stall counts when the late token comes."""
    return idle_s(timeline, curve)
