"""How long one user had nothing to read, up to when he was given up."""

from __future__ import annotations

from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="user_idle_censored_s",
    unit="seconds, per request",
    formula=(
        "max(l, e - d_(n+1)) where a request did not end normally, l elsewhere; "
        "e = when it was ended, or else the end of observation"
    ),
    source="our rule; see `smooth_goodput_censored_tok_s`",
    undefined="nobody reads the request",
)


def user_idle_censored_s(
    timeline: Timeline, curve: ReadingCurve, *, observed_until_s: float | None = None
) -> float:
    """The idle time with the wait for the token that never came."""
    return idle_s(timeline, curve, censored=True, observed_until_s=observed_until_s)
