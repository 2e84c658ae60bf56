"""The highest request rate at which enough requests keep their promise."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric

METRIC = Metric(
    name="capacity",
    unit="requests/s",
    formula=(
        "the highest rate of a sweep such that `slo_attainment` ≥ P (0.9) there "
        "and at each lower rate of the sweep"
    ),
    source="[SLOs-Serve]; [SmoothGoodput] below Eq. 6",
    undefined="fewer than two rates, or the lowest of them fails",
)

ATTAINMENT_MIN = 0.9
"""P: the share of requests that must keep their promise. Ref: [SLOs-Serve] its capacity."""


def capacity(
    sweep: Iterable[tuple[float, float]], *, attainment_min: float = ATTAINMENT_MIN
) -> float | None:
    """From pairs of offered rate (requests/s) and attainment; nothing is read between them."""
    ordered = sorted(sweep)
    if len(ordered) < 2:
        return None
    highest = None
    for rate_req_s, attainment in ordered:
        if attainment < attainment_min:
            break
        highest = rate_req_s
    return highest
