"""Tokens per second, whoever read them."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric

METRIC = Metric(
    name="throughput_tok_s",
    unit="tokens/s",
    formula="Σ_r n_r / T",
    source="common usage",
    undefined="the run has no duration",
)


def throughput_tok_s(tokens: Iterable[int], *, duration_s: float) -> float | None:
    """How many delivered tokens a second of the run has."""
    return sum(tokens) / duration_s if duration_s > 0 else None
