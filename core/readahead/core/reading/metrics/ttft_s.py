"""Time to the first token."""

from __future__ import annotations

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="ttft_s",
    unit="seconds, per request",
    formula="t_1 - arrival",
    source="common usage",
    undefined="the request has no token",
)


def ttft_s(timeline: Timeline) -> float | None:
    """From the commitment to the first token."""
    return timeline.token_times_s[0] - timeline.arrival_s if timeline.tokens else None
