"""Laws of arrivals: they ascend, at the stated rate, with the stated spread."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.workload.arrivals import (
    BurstArrivals,
    GammaArrivals,
    PoissonArrivals,
    WeibullArrivals,
    first_times_s,
    weibull_shape,
)
from readahead.workload.arrivals_kinds import Generated, at_rate
from readahead.workload.arrivals_rates import (
    CurveArrivals,
    MarkovArrivals,
    RampArrivals,
    StepArrivals,
)
from readahead.workload.arrivals_trace import TraceArrivals, replay, spread
from readahead.workload.columns import TraceColumns

SEEDS = st.integers(0, 2**32)
RATES = st.floats(0.01, 1000)
COUNT = 2000
KINDS: tuple[Generated, ...] = (
    PoissonArrivals(rate_req_s=4),
    GammaArrivals(rate_req_s=4, cv=3),
    WeibullArrivals(rate_req_s=4, cv=2),
    BurstArrivals(rate_req_s=4),
    RampArrivals(from_req_s=0, to_req_s=9, over_s=30),
    StepArrivals(rates_req_s=(1, 0, 8), step_s=40),
    CurveArrivals(at_s=(0, 10, 30), rates_req_s=(5, 0, 5), repeats=True),
    MarkovArrivals(rates_req_s=(0, 2, 20), dwells_s=(5, 20, 3)),
)


def _first(arrivals: Generated, seed: int, count: int = COUNT) -> list[float]:
    return list(itertools.islice(arrivals.times_s(random.Random(seed)), count))


def _gaps(times_s: Iterable[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.diff(np.array([0.0, *times_s]))


@pytest.mark.parametrize("arrivals", KINDS, ids=lambda one: one.kind)
@given(seed=SEEDS, count=st.integers(1, 300), duration_s=st.floats(0.1, 100))
@settings(deadline=None, max_examples=20)
def test_times_ascend_and_a_run_ends_by_number_or_time(
    arrivals: Generated, seed: int, count: int, duration_s: float
) -> None:
    """Whichever is first; a longer run begins with the shorter; the same seed, the same times."""
    times_s = _first(arrivals, seed)
    assert times_s[0] >= 0
    assert all(before <= after for before, after in itertools.pairwise(times_s))
    both = list(
        first_times_s(arrivals.times_s(random.Random(seed)), sessions=count, duration_s=duration_s)
    )
    assert both == [at_s for at_s in times_s[:count] if at_s <= duration_s]


@given(SEEDS, RATES, st.floats(0.2, 3), st.sampled_from([GammaArrivals, WeibullArrivals]))
@settings(deadline=None, max_examples=40)
def test_gaps_have_the_stated_mean_and_spread(
    seed: int, rate_req_s: float, cv: float, kind: type[GammaArrivals] | type[WeibullArrivals]
) -> None:
    """The mean is 1/rate within six standard errors, and so the spread, by the process's own
    fourth moment."""
    gaps = _gaps(_first(kind(rate_req_s=rate_req_s, cv=cv), seed, 4000)) * rate_req_s
    assert abs(gaps.mean() - 1) < 6 * cv / math.sqrt(len(gaps))
    if kind is GammaArrivals:
        fourth = 3 * cv**4 + 6 * cv**6  # central, of a gamma with mean 1
        error = math.sqrt((fourth - cv**4) / len(gaps))
        assert abs(((gaps - 1) ** 2).mean() - cv**2) < 8 * error


@given(st.floats(0.02, 20))
def test_a_weibull_shape_has_the_coefficient_asked_for(cv: float) -> None:
    """By the distribution's formula for its moments."""
    shape = weibull_shape(cv)
    square = math.exp(math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)) - 1
    assert math.sqrt(square) == pytest.approx(cv, rel=1e-4)


@given(SEEDS, RATES, st.floats(1, 20))
@settings(deadline=None, max_examples=30)
def test_bursts_have_the_rate_and_dispersion_of_their_batches(
    seed: int, rate_req_s: float, mean_batch: float
) -> None:
    """Counts of a compound Poisson process with geometric batches of mean m have variance over
    mean 2m - 1."""
    arrivals = BurstArrivals(rate_req_s=rate_req_s, mean_batch=mean_batch)
    end_s = 20_000 / rate_req_s
    times_s = np.array(
        list(first_times_s(arrivals.times_s(random.Random(seed)), sessions=None, duration_s=end_s))
    )
    dispersion = 2 * mean_batch - 1
    assert abs(len(times_s) - 20_000) < 6 * math.sqrt(20_000 * dispersion)
    counts, _ = np.histogram(times_s, bins=200, range=(0, end_s))
    # 200 windows: the variance's standard error is about sqrt(2 / 200) of it, and a bit more
    # for the batches' tail.
    assert abs(counts.var() / counts.mean() / dispersion - 1) < 0.75


@given(SEEDS)
@settings(deadline=None, max_examples=15)
def test_rates_that_change_bring_what_their_integral_says(seed: int) -> None:
    """In each stretch as many as the rate integrated, within six standard deviations."""
    ramp = RampArrivals(from_req_s=2, to_req_s=20, over_s=100)
    steps = StepArrivals(rates_req_s=(1, 0, 30), step_s=50)
    curve = CurveArrivals(at_s=(0, 30, 60), rates_req_s=(0, 20, 0))
    for arrivals, windows in (
        (ramp, ((0, 50, 2 * 50 + 0.09 * 2500), (50, 100, 11 * 50 + 0.09 * 2500), (100, 150, 1000))),
        (steps, ((0, 50, 50), (50, 100, 0), (100, 150, 1500))),
        (curve, ((0, 30, 300), (30, 60, 300), (60, 90, 0))),
    ):
        times_s = np.array(_first(arrivals, seed, 5000))
        for begin_s, end_s, mean in windows:
            count = int(((begin_s <= times_s) & (times_s < end_s)).sum())
            assert abs(count - mean) <= 6 * math.sqrt(mean), (arrivals.kind, begin_s)


@given(SEEDS)
@settings(deadline=None, max_examples=15)
def test_states_have_their_share_of_the_time(seed: int) -> None:
    """The mean rate weighs each state's by its dwell; more states in turn vary it further."""
    arrivals = MarkovArrivals(rates_req_s=(0, 2, 20), dwells_s=(5, 20, 3))
    assert arrivals.rate_req_s == pytest.approx(100 / 28)
    end_s = 20_000.0
    drawn = first_times_s(arrivals.times_s(random.Random(seed)), sessions=None, duration_s=end_s)
    times_s = np.array(list(drawn))
    assert len(times_s) / end_s == pytest.approx(100 / 28, rel=0.25)
    counts, _ = np.histogram(times_s, bins=500, range=(0, end_s))
    assert counts.var() / counts.mean() > 5  # a Poisson process has 1 +- 0.4


@given(SEEDS, RATES, st.sampled_from(KINDS))
@settings(deadline=None, max_examples=40)
def test_another_rate_only_stretches(seed: int, rate_req_s: float, arrivals: Generated) -> None:
    """The same seed at another rate gives the same pattern."""
    if not hasattr(arrivals, "rate_req_s"):
        with pytest.raises(ValueError, match="have no one rate"):
            at_rate(arrivals, rate_req_s)
        return
    changed = at_rate(arrivals, rate_req_s)
    assert not isinstance(changed, TraceArrivals)
    factor = arrivals.rate_req_s / rate_req_s
    stretched = [at_s * factor for at_s in _first(arrivals, seed, 200)]
    assert _first(changed, seed, 200) == pytest.approx(stretched, rel=1e-6)


@given(SEEDS)
@settings(deadline=None, max_examples=15)
def test_poisson_processes_laid_over_each_other_are_one(seed: int) -> None:
    """Of the summed rate, with exponential gaps."""
    rng = random.Random(seed)
    each = [PoissonArrivals(rate_req_s=rate).times_s(rng) for rate in (1, 2, 5)]
    gaps = _gaps(itertools.islice(heapq.merge(*each), 4000)) * 8
    assert abs(gaps.mean() - 1) < 6 / math.sqrt(len(gaps))
    assert abs(gaps.var() - 1) < 6 * math.sqrt(8 / len(gaps))


STAMPS = st.lists(st.integers(0, 40), min_size=2, max_size=60).map(
    lambda stamps: np.array(sorted(stamps), dtype=np.float64) * 3 - 3 * min(stamps)
)


def _columns(times_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> TraceColumns:
    lengths = np.arange(1, len(times_s) + 1)
    return TraceColumns(arrival_s=times_s, prompt_tokens=lengths, output_tokens=lengths)


@given(SEEDS, STAMPS, st.floats(0.1, 10))
@settings(deadline=None)
def test_spread_stamps_stay_in_their_slot(
    seed: int, stamps_s: np.ndarray[tuple[int], np.dtype[np.float64]], slot_s: float
) -> None:
    """At or after the stamp, before the slot's end and the next stamp; ascending in all."""
    times_s = spread(stamps_s, slot_s, random.Random(seed))
    assert (times_s >= stamps_s).all()
    assert (times_s <= stamps_s + slot_s).all()
    assert (np.diff(times_s) >= 0).all()
    for begin_s, end_s in itertools.pairwise(np.unique(stamps_s)):
        assert (times_s[stamps_s == begin_s] <= end_s).all()


@given(SEEDS, STAMPS, RATES)
@settings(deadline=None)
def test_scaling_a_trace_keeps_its_shape(
    seed: int, stamps_s: np.ndarray[tuple[int], np.dtype[np.float64]], rate_req_s: float
) -> None:
    """All times by one factor, so that the rows over their time are the wanted rate."""
    arrivals = TraceArrivals(path=Path("t"), rate_req_s=rate_req_s)
    if not stamps_s[-1]:
        with pytest.raises(ValueError, match="arrive at once"):
            replay(arrivals, _columns(stamps_s), random.Random(seed))
        return
    times_s = replay(arrivals, _columns(stamps_s), random.Random(seed)).times_s
    assert len(times_s) / times_s[-1] == pytest.approx(rate_req_s)
    assert times_s / times_s[-1] == pytest.approx(stamps_s / stamps_s[-1])


@given(STAMPS, st.floats(0, 120), st.floats(0.1, 120))
@settings(deadline=None)
def test_a_slice_has_the_rows_within_it(
    stamps_s: np.ndarray[tuple[int], np.dtype[np.float64]], start_s: float, length_s: float
) -> None:
    """From its start, which becomes 0, to before its end; each row once."""
    arrivals = TraceArrivals(path=Path("t"), start_s=start_s, end_s=start_s + length_s)
    inside = [at_s for at_s in stamps_s if start_s <= at_s < start_s + length_s]
    if not inside:
        with pytest.raises(ValueError, match="no row of t is in the slice"):
            replay(arrivals, _columns(stamps_s), random.Random(0))
        return
    sliced = replay(arrivals, _columns(stamps_s), random.Random(0))
    assert sliced.times_s == pytest.approx([at_s - start_s for at_s in inside])
    assert stamps_s[sliced.first_row] == inside[0]
    assert sliced.first_row == 0 or stamps_s[sliced.first_row - 1] < start_s
