"""Tokens per second of requests that kept their promise."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric

METRIC = Metric(
    name="goodput_tok_s",
    unit="tokens/s",
    formula="Σ_r 1(r attained) n_r / T; attained as in `slo_attainment`",
    source="[SmoothGoodput] Eq. 7 as its formula has it",
    undefined="the run has no duration",
)


def goodput_tok_s(attained_tokens: Iterable[int], *, duration_s: float) -> float | None:
    """How many tokens of attained requests a second of the run has."""
    return sum(attained_tokens) / duration_s if duration_s > 0 else None
