"""Time between tokens, also called inter-token latency."""

from __future__ import annotations

from itertools import pairwise

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="tbt_s",
    unit="seconds, per gap; all gaps of all requests together",
    formula="t_i - t_(i-1), i = 2..n; 0 between tokens that came together",
    source="common usage; also ITL",
    undefined="the request has fewer than two tokens",
)


def tbt_s(timeline: Timeline) -> list[float]:
    """Each gap between neighbours."""
    return [later - earlier for earlier, later in pairwise(timeline.token_times_s)]
