"""How sure a comparison is: bootstrap intervals, from what runs were made of.

Ref: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile
intervals); Künsch, "The jackknife and the bootstrap for general stationary observations", Annals
of Statistics 17(3), 1989, for blocks of neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from readahead.ruler.columns import benefits
from readahead.ruler.run import Floats, Integers
from readahead.ruler.scoring import RunScore

RESAMPLES = 2000
CHUNKS = 20
"""Stretches of neighbouring requests that a single run is resampled by: requests near to one
another met the same queue, and are no independent observations."""
SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate, and between which values it lies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A number of a run by which runs are compared."""

    name: str
    label: str
    is_more_better: bool
    of: Callable[[RunScore, Integers], float]
    """From some of its requests, as if they were all of them; nan: undefined."""


def ratio_interval(
    ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0
) -> Interval | None:
    """Ratio of the mean of `ours` to that of `theirs`, over pairs of blocks; None: undefined.

    Pairs are resampled as pairs: block i of both saw the same requests at nearly the same time.
    With one pair there is nothing to resample, and the interval is nan.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} blocks cannot be paired with {len(theirs)}")
    mine, base = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    kept = np.isfinite(mine) & np.isfinite(base)
    mine, base = mine[kept], base[kept]
    if not len(base) or base.mean() == 0:
        return None
    value = float(mine.mean() / base.mean())
    if len(base) < 2:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    picks = np.random.default_rng(seed).integers(len(base), size=(RESAMPLES, len(base)))
    bottoms = base[picks].mean(axis=1)
    tops = mine[picks].mean(axis=1)
    ratios = tops[bottoms != 0] / bottoms[bottoms != 0]
    return _interval(value, ratios)


def run_interval(found: RunScore, measure: Measure, *, seed: int = 0) -> Interval | None:
    """A number of one run, resampled by stretches of its requests; None: undefined."""
    order = np.argsort(found.run.arrivals_s, kind="stable")
    value = measure.of(found, order)
    if not np.isfinite(value):
        return None
    chunks = np.array_split(order, min(CHUNKS, len(order)))
    if len(chunks) < 2:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    rng = np.random.default_rng(seed)
    drawn = [
        measure.of(found, np.concatenate([chunks[place] for place in picks]))
        for picks in rng.integers(len(chunks), size=(RESAMPLES // 4, len(chunks)))
    ]
    return _interval(value, np.array([one for one in drawn if np.isfinite(one)]))


def _interval(value: float, drawn: Floats) -> Interval:
    if not len(drawn):
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.quantile(drawn, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def _smooth(found: RunScore, rows: Integers) -> float:
    worth = benefits(found.each, found.ruler, found.each.idle_censored_s)
    return _per_s(found, rows, float(worth[rows].sum()))


def _throughput(found: RunScore, rows: Integers) -> float:
    return _per_s(found, rows, float(found.run.tokens[rows].sum()))


def _per_s(found: RunScore, rows: Integers, total: float) -> float:
    """A total over the run's time; resampled requests stand for the same share of it."""
    share = len(rows) / max(1, found.run.requests)
    duration_s = found.observed.duration_s * share
    return total / duration_s if duration_s > 0 else float("nan")


def _attainment(found: RunScore, rows: Integers) -> float:
    return float(found.each.attained[rows].mean()) if len(rows) else float("nan")


def _percentile_of(column: str, share: float) -> Callable[[RunScore, Integers], float]:
    def of(found: RunScore, rows: Integers) -> float:
        values = getattr(found.each, column)[rows]
        values = values[~np.isnan(values)]
        return float(np.quantile(values, share)) if len(values) else float("nan")

    return of


def _mean_of(column: str) -> Callable[[RunScore, Integers], float]:
    def of(found: RunScore, rows: Integers) -> float:
        values = getattr(found.each, column)[rows]
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    return of


MEASURES = (
    Measure(
        name="smooth_goodput_censored_tok_s",
        label="smooth goodput (censored), tok/s",
        is_more_better=True,
        of=_smooth,
    ),
    Measure(
        name="throughput_tok_s", label="throughput, tok/s", is_more_better=True, of=_throughput
    ),
    Measure(name="slo_attainment", label="SLO attainment", is_more_better=True, of=_attainment),
    Measure(
        name="user_idle_censored_s.mean",
        label="user idle (censored), mean s",
        is_more_better=False,
        of=_mean_of("idle_censored_s"),
    ),
    Measure(
        name="ttft_s.p50",
        label="TTFT p50, s",
        is_more_better=False,
        of=_percentile_of("ttft_s", 0.5),
    ),
    Measure(
        name="ttft_s.p99",
        label="TTFT p99, s",
        is_more_better=False,
        of=_percentile_of("ttft_s", 0.99),
    ),
    Measure(name="tpot_s.mean", label="TPOT mean, s", is_more_better=False, of=_mean_of("tpot_s")),
    Measure(name="e2e_s.mean", label="E2E mean, s", is_more_better=False, of=_mean_of("e2e_s")),
)
"""By which runs are compared, in the order of tables."""
