"""The share of requests that kept their promise."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.curves import Curve
from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="slo_attainment",
    unit="share of requests, 0 to 1",
    formula=(
        "Σ_r 1(r ended normally and ∀i t_i ≤ d_i) / |R|; "
        "d is the request's own SLO, or else the one given, or else the reading curve, "
        "or, where nobody reads, never"
    ),
    source="[SmoothGoodput] Eq. 6; what was declined or cut off is missed, as in [SLOs-Serve]",
    undefined="there are no requests",
)


def is_attained(timeline: Timeline, slo: Curve) -> bool:
    """Whether it came to its own end with each token in time."""
    return timeline.ended_normally and slo.is_met(timeline)


def slo_attainment(attained: Iterable[bool]) -> float | None:
    """The share of True."""
    flags = list(attained)
    return sum(flags) / len(flags) if flags else None
