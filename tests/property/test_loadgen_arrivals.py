"""Laws of arrivals, lengths and the workload made of them."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.loadgen.arrivals import first_arrivals_s, poisson_arrivals_s
from readahead.loadgen.lengths import FixedLength, LognormalLength
from readahead.loadgen.prompts import WordPrompts
from readahead.loadgen.workload import WorkloadSpec, plan

SEEDS = st.integers(0, 2**32)
RATES = st.floats(0.01, 1000)
ARRIVALS = 2000


@given(SEEDS, RATES)
@settings(deadline=None, max_examples=50)
def test_arrivals_ascend_at_the_stated_rate(seed: int, rate_req_s: float) -> None:
    """The mean gap is 1/rate within five standard errors, and its spread is a Poisson process's."""
    arrivals_s = list(
        itertools.islice(poisson_arrivals_s(random.Random(seed), rate_req_s=rate_req_s), ARRIVALS)
    )
    gaps = [
        (later - earlier) * rate_req_s for earlier, later in itertools.pairwise([0.0, *arrivals_s])
    ]
    mean = math.fsum(gaps) / ARRIVALS
    assert min(gaps) >= 0
    assert abs(mean - 1) < 5 / math.sqrt(ARRIVALS)
    # An exponential has variance 1 and fourth central moment 9, so the standard error of the
    # variance is sqrt(8 / n).
    variance = math.fsum((gap - mean) ** 2 for gap in gaps) / ARRIVALS
    assert abs(variance - 1) < 6 * math.sqrt(8 / ARRIVALS)


@given(SEEDS, RATES, st.integers(1, 500), st.floats(0.1, 20))
@settings(deadline=None)
def test_a_run_ends_by_number_or_time(
    seed: int, rate_req_s: float, requests: int, duration_s: float
) -> None:
    """Whichever is first; and a longer run begins with the shorter one."""

    def arrivals_s(requests: int | None, duration_s: float | None) -> list[float]:
        endless = poisson_arrivals_s(random.Random(seed), rate_req_s=rate_req_s)
        return first_arrivals_s(endless, requests=requests, duration_s=duration_s)

    both, by_number = arrivals_s(requests, duration_s), arrivals_s(requests, None)
    assert len(by_number) == requests
    assert both == [at_s for at_s in by_number if at_s <= duration_s]


@given(SEEDS, st.floats(1, 500), st.floats(0, 2), st.integers(0, 1000))
@settings(deadline=None)
def test_lognormal_lengths_stay_within_their_bounds(
    seed: int, median_tokens: float, sigma: float, room_tokens: int
) -> None:
    """At least one token, at most the cap, whatever the spread."""
    tokens_max = math.ceil(median_tokens) + room_tokens
    lengths = LognormalLength(median_tokens=median_tokens, sigma=sigma, tokens_max=tokens_max)
    rng = random.Random(seed)
    assert all(1 <= lengths.draw(rng) <= tokens_max for _ in range(100))


@given(SEEDS)
@settings(deadline=None, max_examples=20)
def test_the_median_is_the_median(seed: int) -> None:
    """Half of all draws are at most the median."""
    lengths, rng = LognormalLength(median_tokens=300, sigma=0.8), random.Random(seed)
    below = sum(lengths.draw(rng) <= 300 for _ in range(ARRIVALS))
    assert abs(below / ARRIVALS - 0.5) < 5 * 0.5 / math.sqrt(ARRIVALS)


@given(SEEDS)
@settings(deadline=None)
def test_a_workload_follows_from_its_seed(seed: int) -> None:
    """Same seed, same workload; and changing the prompts leaves arrivals and answers alone."""
    spec = WorkloadSpec(
        seed=seed,
        rate_req_s=10,
        requests=20,
        duration_s=None,
        prompt_lengths=LognormalLength(median_tokens=20, sigma=1, tokens_max=100),
        output_lengths=LognormalLength(median_tokens=20, sigma=1, tokens_max=100),
    )
    first = plan(spec, WordPrompts(), run_id="r")
    assert first == plan(spec, WordPrompts(), run_id="r")
    assert len({request.request_id for request in first}) == 20
    other = plan(replace(spec, prompt_lengths=FixedLength(tokens=3)), WordPrompts(), run_id="r")
    assert [(r.arrival_s, r.output_tokens) for r in first] == [
        (r.arrival_s, r.output_tokens) for r in other
    ]
    assert first != plan(replace(spec, seed=seed + 1), WordPrompts(), run_id="r")
