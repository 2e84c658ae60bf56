"""Laws of draft lengths: what is measured, and what follows from it."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.latency.budget import tokens_within
from readahead.core.latency.iteration import (
    IterationWork,
    LatencyModel,
    LatencyPlane,
    iteration_s,
)
from readahead.core.planning.drafts import (
    MEMORY_TOKENS,
    PROBE_EVERY,
    Acceptance,
    DraftPlanner,
    Iteration,
)
from readahead.core.planning.speculation import PaceClass, plan_drafts, tokens_per_verification


def model(token_s: float = 5e-5, step_s: float = 1e-3, base_s: float = 0.02) -> LatencyModel:
    """Compute beside the reading of weights, as of a large model with a small one that drafts."""
    return LatencyModel(
        name="test",
        planes=(
            LatencyPlane(token_s=token_s, draft_step_s=step_s, base_s=3e-3),
            LatencyPlane(past_token_s=1e-7, draft_step_s=step_s, base_s=base_s),
        ),
    )


def iteration(readers: int, *, waits: bool, latency: LatencyModel | None) -> Iteration:
    work = IterationWork(
        tokens=readers, requests=readers, past_tokens=500 * readers, prefill_pairs=0
    )
    return Iteration(work=work, tokens_max=4096, latency=latency, prompts_wait=waits)


def planner_of(rates: list[float], *, most: int = 8, tokens: int = 4000) -> DraftPlanner:
    """One that has seen as much of each request as it remembers."""
    planner, draw = DraftPlanner(draft_tokens_max=most), random.Random(7)
    for key, rate in enumerate(rates):
        seen = 0
        while seen < tokens:
            accepted = next((n for n in range(4) if draw.random() >= rate), 4)
            planner.observe(key, drafted=4, accepted=accepted)
            seen += accepted + 1
    return planner


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("length", [1, 3, 8])
def test_what_is_measured_is_what_is_drawn(rate: float, length: int) -> None:
    """Whatever the drafts' length: tokens behind the first refused one say nothing."""
    draw, found, estimates = random.Random(f"{rate}/{length}"), Acceptance(), []
    for _ in range(4000):
        accepted = next((n for n in range(length) if draw.random() >= rate), length)
        found.observe(drafted=length, accepted=accepted)
        estimates.append(found.estimate(0.5))
    assert sum(estimates[500:]) / 3500 == pytest.approx(rate, abs=0.04)
    assert found.tried <= MEMORY_TOKENS + length + 1  # bounded, however long it runs


def test_a_text_that_changes_is_noticed() -> None:
    found = Acceptance()
    for _ in range(500):
        found.observe(drafted=4, accepted=4)
    for _ in range(300):
        found.observe(drafted=4, accepted=0)
    assert found.estimate(0.6) < 0.1


def test_more_cannot_be_accepted_than_was_drafted() -> None:
    with pytest.raises(ValueError, match="accepted must be from 0 to 3"):
        Acceptance().observe(drafted=3, accepted=4)


@settings(max_examples=150, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), min_size=1, max_size=12),
    paces=st.lists(st.sampled_from([3.0, 20.0, 60.0]), min_size=12, max_size=12),
    most=st.integers(1, 8),
    tokens_max=st.integers(0, 40),
    waits=st.booleans(),
    knows=st.booleans(),
)
def test_lengths_fit_and_the_predictable_get_no_less(
    rates: list[float], paces: list[float], most: int, tokens_max: int, waits: bool, knows: bool
) -> None:
    planner = planner_of(rates, most=most, tokens=200)
    now = replace(
        iteration(len(rates), waits=waits, latency=model() if knows else None),
        tokens_max=tokens_max,
    )
    readers = [(key, 1 / paces[key]) for key in range(len(rates))]
    lengths: list[int] = []
    for _ in range(3):
        lengths = planner.lengths(readers, now)
        assert len(lengths) == len(rates)
        assert all(0 <= length <= most for length in lengths)
        assert sum(lengths) <= tokens_max
    if (waits and knows) or tokens_max < most * len(rates):
        return
    for one, other in itertools.combinations(range(len(rates)), 2):
        if planner.acceptance(one) >= planner.acceptance(other):
            assert lengths[one] >= lengths[other]


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("readers", [1, 30, 400])
@pytest.mark.parametrize("step_s", [0.0, 2e-3, 2e-2])
def test_while_nobody_waits_most_tokens_are_made(rate: float, readers: int, step_s: float) -> None:
    """Within 3 % of the best of all lengths, tried one by one."""
    planner = planner_of([rate])
    found_rate = planner.acceptance("new")
    latency = model(step_s=step_s)
    now = iteration(readers, waits=False, latency=latency)

    def tok_s(length: int) -> float:
        work = replace(now.work, tokens=readers * (1 + length), draft_steps=length)
        made = tokens_per_verification(length + 1, acceptance=found_rate)
        return readers * made / iteration_s(work, model=latency)

    lengths = planner.lengths([(f"new {n}", 0.2) for n in range(readers)], now)
    assert len(set(lengths)) == 1
    assert tok_s(lengths[0]) >= 0.97 * max(tok_s(length) for length in range(9))


@pytest.mark.parametrize("pace_tok_s", [5.0, 30.0, 60.0, 90.0, 300.0])
@pytest.mark.parametrize("rate", [0.4, 0.8])
def test_while_prompts_wait_lengths_are_the_solvers(pace_tok_s: float, rate: float) -> None:
    """As many as it says for readers who are all alike; slow ones need none."""
    planner, latency = planner_of([rate]), model()
    now = iteration(20, waits=True, latency=latency)
    lengths = planner.lengths([(f"new {n}", 1 / pace_tok_s) for n in range(20)], now)

    def within(seconds: float, steps: int) -> int:
        work = IterationWork(
            tokens=0, requests=20, past_tokens=10_000, prefill_pairs=0, draft_steps=steps
        )
        return tokens_within(seconds, model=latency, work=work, most=20 + 4096)

    solved = plan_drafts(
        [PaceClass(token_s=1 / pace_tok_s, requests=20)],
        acceptance=planner.acceptance("new"),
        tokens_within=within,
        draft_tokens_max=9,
    )
    if solved.prompt_tokens >= 0:
        assert lengths == [solved.draft_tokens[0] - 1] * 20
    else:  # too fast for this engine: it does what it can
        idle = iteration(20, waits=False, latency=latency)
        assert lengths == planner.lengths([(f"new {n}", 1.0) for n in range(20)], idle) != [0] * 20
    if pace_tok_s == 5.0:
        assert lengths == [0] * 20


def test_who_reads_fast_gets_drafts_and_who_reads_slowly_does_not() -> None:
    planner = planner_of([0.8, 0.8])
    readers = [(0, 1 / 50), (1, 1 / 5)]
    fast, slow = planner.lengths(readers, iteration(2, waits=True, latency=model()))
    assert fast > slow == 0


def test_the_unpredictable_are_tried_again_now_and_then() -> None:
    planner = planner_of([0.0])
    now = iteration(1, waits=False, latency=model(step_s=0.02))
    lengths = [planner.lengths([(0, 0.2)], now)[0] for _ in range(4 * PROBE_EVERY)]
    assert sum(lengths) == 4
    assert set(lengths) == {0, 1}


def test_who_is_gone_is_forgotten() -> None:
    planner = planner_of([0.5] * 30)
    planner.lengths([(key, 0.2) for key in range(40)], iteration(40, waits=False, latency=None))
    for key in range(40):
        planner.forget(key)
    planner.forget("never seen")
    assert len(planner) == 0
    assert planner.lengths([], iteration(0, waits=False, latency=None)) == []
