"""Requests per second that kept their promise."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric

METRIC = Metric(
    name="goodput_req_s",
    unit="requests/s",
    formula="Σ_r 1(r attained) / T; attained as in `slo_attainment`",
    source="[SmoothGoodput] Eq. 7 as its text has it",
    undefined="the run has no duration",
)


def goodput_req_s(attained: Iterable[bool], *, duration_s: float) -> float | None:
    """How many attained requests a second of the run has."""
    return sum(attained) / duration_s if duration_s > 0 else None
