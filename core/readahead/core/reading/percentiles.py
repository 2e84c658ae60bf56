"""Exact percentiles of recorded values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of them lies, 0 <= share <= 1. They are in ascending order.

    Between two records it interpolates linearly: with n records, share p lies at the place
    p (n - 1), counted from 0. This is what numpy does unless told otherwise.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be within 0 and 1, is {share}")
    if not len(ordered):
        raise ValueError("no values")
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (ordered[above] - ordered[below]) * (place - below))


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A distribution in five numbers."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float


def summary(values: Iterable[float]) -> Summary | None:
    """The five numbers of these values; None if there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return Summary(
        count=len(ordered),
        mean=math.fsum(ordered) / len(ordered),
        p50=percentile(ordered, 0.5),
        p90=percentile(ordered, 0.9),
        p99=percentile(ordered, 0.99),
    )
