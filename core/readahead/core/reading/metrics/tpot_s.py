"""Time per output token after the first."""

from __future__ import annotations

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="tpot_s",
    unit="seconds, per request",
    formula="(t_n - t_1) / (n - 1)",
    source="common usage",
    undefined="the request has fewer than two tokens",
)


def tpot_s(timeline: Timeline) -> float | None:
    """The mean gap of one request."""
    if timeline.tokens < 2:
        return None
    times_s = timeline.token_times_s
    return (times_s[-1] - times_s[0]) / (timeline.tokens - 1)
