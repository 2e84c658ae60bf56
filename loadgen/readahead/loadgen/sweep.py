"""Rates to try one after another, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.reading.metrics.capacity import capacity
from readahead.ruler.scoring import RunScore

RATES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One rate of a sweep."""

    rate_req_s: float
    score: RunScore
    is_valid: bool

    @property
    def smooth_goodput_tok_s(self) -> float:
        """Censored, as users who were left hanging count past the peak; -inf: undefined."""
        value = self.score.score.smooth_goodput_censored_tok_s
        return -math.inf if value is None else value


def parse_rates(text: str) -> list[float]:
    """Reads "FROM:TO:COUNT" (as many rates, evenly apart) or "1,2,4".

    Raises:
        ValueError: it is neither; the message says what was expected.
    """
    expected = f"a sweep is FROM:TO:COUNT, as 1:16:6, or rates, as 1,2,4, got {text!r}"
    try:
        if ":" in text:
            low_text, high_text, count_text = text.split(":")
            low, high, count = float(low_text), float(high_text), int(count_text)
            if not 2 <= count <= RATES_MAX:
                raise ValueError(f"a sweep has 2 to {RATES_MAX} rates, got {count}")
            rates = [low + (high - low) * i / (count - 1) for i in range(count)]
        else:
            rates = [float(part) for part in text.split(",")]
    except ValueError as error:
        said = str(error)
        raise ValueError(said if said.startswith("a sweep") else expected) from None
    if any(not 0 < rate < math.inf for rate in rates):
        raise ValueError(f"rates of a sweep must be positive and finite, got {text!r}")
    if len(rates) > RATES_MAX:
        raise ValueError(f"a sweep has at most {RATES_MAX} rates, got {len(rates)}")
    if sorted(set(rates)) != rates:
        raise ValueError(f"rates of a sweep must ascend, got {text!r}")
    return [round(rate, 9) for rate in rates]


def peak(points: Sequence[SweepPoint]) -> SweepPoint | None:
    """The valid point of most smooth goodput, the lowest rate of equals; None: there is none."""
    valid = [point for point in points if point.is_valid and point.smooth_goodput_tok_s > -math.inf]
    return max(valid, key=lambda point: point.smooth_goodput_tok_s, default=None)


def is_bracketed(points: Sequence[SweepPoint]) -> bool:
    """Whether the sweep went past its peak on both sides: else the true peak may lie outside."""
    best = peak(points)
    rates = [point.rate_req_s for point in points if point.is_valid]
    return best is not None and min(rates) < best.rate_req_s < max(rates)


def sweep_capacity_req_s(points: Sequence[SweepPoint]) -> float | None:
    """The highest rate up to which 90 % of the promises are kept; None: even the lowest fails."""
    return capacity(
        (point.rate_req_s, point.score.score.slo_attainment or 0.0)
        for point in points
        if point.is_valid
    )
