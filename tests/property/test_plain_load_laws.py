"""Laws of the plain workload: requests of given lengths by people who ask once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.loadgen.load_offer import Target, at_rate, make_offer, with_seed
from readahead.loadgen.load_plain import PlainSpec
from readahead.workload.arrivals import ClosedLoop, PoissonArrivals
from readahead.workload.lengths import FixedLength, LognormalLength

SEEDS = st.integers(0, 2**32)
WORDS = Target(takes_ids=False, model_path=None)
LENGTHS = LognormalLength(median_tokens=20, sigma=1, tokens_max=100)


def spec_of(seed: int = 0, **changes: object) -> PlainSpec:
    spec = PlainSpec(
        seed=seed,
        arrivals=PoissonArrivals(rate_req_s=10),
        requests=20,
        duration_s=None,
        prompt_lengths=LENGTHS,
        output_lengths=LENGTHS,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


@given(SEEDS)
@settings(deadline=None, max_examples=40)
def test_a_workload_follows_from_its_seed(seed: int) -> None:
    """Same seed, same workload; and changing the prompts leaves arrivals and answers alone."""
    first, again = (make_offer(spec_of(seed), WORDS, pace_tok_s=None) for _ in range(2))
    assert first.sessions == again.sessions
    (segment,) = first.sessions[0].turns[0].segments
    assert first.texts(segment) == again.texts(segment)
    assert len({session.session_id for session in first.sessions}) == 20
    short = make_offer(spec_of(seed, prompt_lengths=FixedLength(tokens=3)), WORDS, pace_tok_s=None)
    for one, other in zip(first.sessions, short.sessions, strict=True):
        assert one.arrival_s == other.arrival_s
        assert one.turns[0].output_tokens == other.turns[0].output_tokens
        assert other.turns[0].segments[0].tokens == 3
    assert make_offer(with_seed(spec_of(), seed + 1), WORDS, pace_tok_s=None).sessions != (
        first.sessions
    )


@given(SEEDS, st.integers(1, 100), st.floats(0.1, 10))
@settings(deadline=None, max_examples=40)
def test_a_run_ends_by_number_or_time(seed: int, requests: int, duration_s: float) -> None:
    """Whichever is first; and a longer run begins with the shorter one."""
    by_number = make_offer(spec_of(seed, requests=requests), WORDS, pace_tok_s=None)
    arrivals_s = [session.arrival_s for session in by_number.sessions]
    assert len(arrivals_s) == requests
    kept_s = [at_s for at_s in arrivals_s if at_s <= duration_s]
    both = spec_of(seed, requests=requests, duration_s=duration_s)
    if not kept_s:
        with pytest.raises(ValueError, match="no request arrives"):
            make_offer(both, WORDS, pace_tok_s=None)
        return
    offered = make_offer(both, WORDS, pace_tok_s=None)
    assert [session.arrival_s for session in offered.sessions] == kept_s


@given(SEEDS, st.floats(0.5, 50))
@settings(deadline=None, max_examples=20)
def test_another_rate_stretches_the_arrivals(seed: int, rate_req_s: float) -> None:
    """The same requests in the same order, nearer together or further apart."""
    base, other = (
        make_offer(at_rate(spec_of(seed), rate), WORDS, pace_tok_s=None)
        for rate in (1.0, rate_req_s)
    )
    assert other.rate_req_s == rate_req_s
    for one, stretched in zip(base.sessions, other.sessions, strict=True):
        assert stretched.arrival_s == pytest.approx(one.arrival_s / rate_req_s)
        assert stretched.turns == one.turns


def test_what_never_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="a number of requests or a duration"):
        make_offer(spec_of(requests=None), WORDS, pace_tok_s=None)
    closed = spec_of(requests=None, arrivals=ClosedLoop(concurrency=2))
    with pytest.raises(ValueError, match="a closed loop needs a number of requests"):
        make_offer(closed, WORDS, pace_tok_s=None)
    with pytest.raises(ValueError, match="no one rate"):
        at_rate(closed, 2.0)
