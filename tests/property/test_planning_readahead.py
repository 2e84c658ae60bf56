"""What the mechanisms of `readahead` promise of each iteration."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_rounds import LIMITS, MODEL, sequence

from readahead.core.latency.budget import CHUNK_TOKENS_MAX
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.latency.profile_text import profile
from readahead.core.planning.batch import Batch
from readahead.core.planning.chunks import WorkSum, saturated_tokens
from readahead.core.planning.policies.readahead import Readahead
from readahead.core.planning.policy import EngineView, Plan
from readahead.core.planning.prompts import Bound
from readahead.core.planning.readers import Readers, readers_of
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.sitting_out import in_time, pays, token_s, what_is_wanted

ROOMY = replace(LIMITS, kv_blocks=1000, requests_max=64, batch_tokens_max=1024)
TOLERANCE_S = 1e-9
READERS = st.lists(st.tuples(st.floats(0.02, 6), st.integers(10, 300)), max_size=6)
"""Seconds left to read, and KV tokens."""
PROMPTS = st.lists(st.tuples(st.floats(-0.5, 1.5), st.integers(2, 200)), min_size=1, max_size=6)
"""Seconds until each is due, and its tokens."""
Cast = list[tuple[float, int]]


def batch(readers: Cast, prompts: Cast, *, mixing: float = 1.0, **knobs: float) -> Batch:
    limits = replace(ROOMY, latency=replace(MODEL, mixing=mixing))
    policy = Readahead(**{"cap_tokens": 500, **knobs})  # type: ignore[arg-type]
    made = Batch(limits=limits, policy=policy)
    for number, (slack_s, context_tokens) in enumerate(readers):
        one = sequence(number, prompt_tokens=context_tokens, now=-9.0)
        one.generated, one.computed, one.reads_until = 1, context_tokens, slack_s
        one.blocks = limits.blocks_for(one.known)
        assert made.take(one.blocks)
        made.running.append(one)
    for number, (due_s, tokens) in enumerate(prompts, len(readers)):
        one = sequence(number, prompt_tokens=tokens, now=-1.0)
        one.reads_until = due_s
        made.add(one)
    return made


def seen(made: Batch) -> tuple[EngineView, Readers, list[Sequence]]:
    view = EngineView(
        limits=made.limits,
        blocks_free=made.blocks_free,
        running=made.running,
        waiting=made.waiting,
        pulling=0,
    )
    return view, readers_of(view, 0.0, rich_s=2.0), list(made.waiting)


def sitting(plan: Plan, readers: list[Sequence]) -> list[Sequence]:
    inside = {one for one, _ in plan.entries}
    return [one for one in readers if one not in inside]


@given(READERS, PROMPTS)
@settings(max_examples=120, deadline=None)
def test_nobody_is_made_late_by_what_is_put_in_behind_him(readers: Cast, prompts: Cast) -> None:
    """A prompt that is in time where it ends is in time when the iteration does."""
    plan = batch(readers, prompts).plan(0.0)
    whole_s, work = iteration_s(plan.work, model=MODEL), WorkSum()
    for one, tokens in plan.entries:
        work.add(one.computed, tokens)
        if 1 < tokens == one.missing and work.seconds(MODEL) <= one.due_at:
            assert whole_s <= one.due_at + TOLERANCE_S


@given(READERS, PROMPTS, st.sampled_from([1.0, 1.7, 3.0]))
@settings(max_examples=120, deadline=None)
def test_only_the_rich_sit_out_and_only_for_a_prompt(
    readers: Cast, prompts: Cast, mixing: float
) -> None:
    """Who sits out has more than `rich_s` left; while no prompt waits nobody does."""
    made = batch(readers, prompts, mixing=mixing)
    decoding = list(made.running)
    assert all(one.due_at > 2.0 for one in sitting(made.plan(0.0), decoding))
    made = batch(readers, [], mixing=mixing)
    assert not sitting(made.plan(0.0), made.running)


@given(READERS, PROMPTS)
@settings(max_examples=120, deadline=None)
def test_nobody_sits_out_for_nothing(readers: Cast, prompts: Cast) -> None:
    """Where tokens cost as much later, they are postponed for more promises only."""
    made = batch(readers, prompts)
    view, sorted_out, waiting = seen(made)
    bound = Bound(limit_s=0.25, tokens_max=500)
    wanted = what_is_wanted(sorted(waiting, key=lambda one: one.due_at), MODEL, 0.0)
    beside, without = (
        in_time(wanted, token_s(each, MODEL, bound))
        for each in (sorted_out.decoding, sorted_out.poor)
    )
    assert without >= beside
    assert pays(view, sorted_out, waiting, bound=bound, now=0.0) == (without > beside)
    plan = made.plan(0.0)
    if without == beside:
        assert not sitting(plan, sorted_out.decoding)


def test_the_rich_sit_out_where_a_prompt_makes_them_dear() -> None:
    """One plane, KV three times as dear to read beside a prompt: their tokens wait for its end."""
    for mixing, is_out in ((1.0, False), (1.2, False), (3.0, True)):
        made = batch([(5.0, 400), (1.0, 20)], [(1.4, 40)], mixing=mixing)
        assert bool(sitting(made.plan(0.0), made.running[:1])) == is_out


def test_nobody_sits_out_while_memory_is_short() -> None:
    """Later tokens would only keep blocks for longer; but for a prompt that fits and is saved."""
    made = batch([(5.0, 400), (1.0, 20)], [(1.4, 40), (1.4, 40)], mixing=3.0)
    assert made.take(made.blocks_free - 15)
    assert not sitting(made.plan(0.0), made.running[:1])


@pytest.mark.parametrize(
    "name", ["opt-13b-a100-40g", "opt-6.7b-a100-40g", "llama-3.1-8b-a100-80g", "llama-3.1-8b-h100"]
)
@pytest.mark.parametrize("waste", [0.05, 0.1, 0.3])
def test_an_iteration_wastes_no_more_than_it_may(name: str, waste: float) -> None:
    """At the saturation its time is within bounds, one token earlier it is not."""
    model = profile(name).latency

    def seconds(tokens: int) -> float:
        work = IterationWork(tokens=tokens, requests=1, past_tokens=0, prefill_pairs=0)
        return iteration_s(work, model=model)

    half = CHUNK_TOKENS_MAX // 2
    token_s_least = (seconds(2 * half) - seconds(half)) / half
    tokens = saturated_tokens(model, waste=waste)
    assert seconds(tokens) <= (1 + waste) * token_s_least * tokens
    assert seconds(tokens - 1) > (1 + waste) * token_s_least * (tokens - 1)
    assert tokens >= saturated_tokens(model, waste=2 * waste)
