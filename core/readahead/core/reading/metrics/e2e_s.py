"""Time to the last token."""

from __future__ import annotations

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="e2e_s",
    unit="seconds, per request",
    formula="t_n - arrival",
    source="common usage",
    undefined="the request has no token",
)


def e2e_s(timeline: Timeline) -> float | None:
    """From the commitment to the last token that was delivered."""
    return timeline.token_times_s[-1] - timeline.arrival_s if timeline.tokens else None
