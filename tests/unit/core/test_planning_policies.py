"""What each batch policy is for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_rounds import LIMITS, MODEL, Rounds, sequence

from readahead.core.latency.iteration import iteration_s
from readahead.core.planning.batch import Batch
from readahead.core.planning.knobs import knobs_of
from readahead.core.planning.policies.registry import POLICIES, make_policy
from readahead.core.planning.policy import EngineLimits, Plan
from readahead.core.planning.sequence import Sequence

ROOMY = replace(LIMITS, kv_blocks=1000, requests_max=64, batch_tokens_max=1024)


def batch(policy: str, *, limits: EngineLimits = ROOMY, **knobs: float) -> Batch:
    return Batch(limits=limits, policy=make_policy(policy, knobs))


def reader(to: Batch, number: int, *, slack_s: float, context_tokens: int = 20) -> Sequence:
    """One that decodes and has so much left to read at time 0."""
    one = sequence(number, prompt_tokens=context_tokens - 5, output_tokens=1000, now=-10.0)
    one.generated, one.computed = 5, context_tokens - 1
    one.reads_until = slack_s
    one.blocks = to.limits.blocks_for(context_tokens)
    assert to.take(one.blocks)
    to.running.append(one)
    return one


def prompt(to: Batch, number: int, tokens: int, *, due_s: float = 1.2) -> Sequence:
    one = sequence(number, prompt_tokens=tokens, now=0.0)
    one.reads_until = due_s
    to.add(one)
    return one


def shares(plan: Plan) -> dict[str, int]:
    return {one.request_id: tokens for one, tokens in plan.entries}


def test_vllm_computes_prompts_while_others_wait() -> None:
    """Whole prompts go alone, those that decode after them."""
    to = batch("vllm", batch_tokens=100)
    reader(to, 1, slack_s=1.0)
    prompt(to, 2, 60)
    prompt(to, 3, 40)
    prompt(to, 4, 1)
    plan = to.plan(0.0)
    assert shares(plan) == {"r2": 60, "r3": 40}
    to.commit(plan)
    to.commit(to.plan(0.0))
    assert shares(to.plan(0.0)) == {"r1": 1, "r2": 1, "r3": 1, "r4": 1}


def test_vllm_computes_an_over_long_prompt_in_pieces() -> None:
    """Where a prompt exceeds the budget it goes alone."""
    to = batch("vllm", batch_tokens=50)
    prompt(to, 1, 120)
    prompt(to, 2, 10)
    seen = []
    for _ in range(3):
        plan = to.plan(0.0)
        seen.append(shares(plan))
        to.commit(plan)
    assert seen == [{"r1": 50}, {"r1": 50}, {"r1": 20, "r2": 10}]


def test_chunked_fills_what_those_that_run_leave() -> None:
    """Running first, then chunks up to the budget."""
    to = batch("vllm-chunked", batch_tokens=64)
    reader(to, 1, slack_s=1.0)
    prompt(to, 2, 50)
    prompt(to, 3, 50)
    assert shares(to.plan(0.0)) == {"r1": 1, "r2": 50, "r3": 13}


def test_sarathi_keeps_the_time_between_tokens() -> None:
    """The chunk is the longest that the bound allows, and the budget counts decodes."""
    to = batch("sarathi", tbt_s=0.1)
    reader(to, 1, slack_s=9.0)
    prompt(to, 2, 900)
    plan = to.plan(0.0)
    chunk = shares(plan)["r2"]
    assert iteration_s(plan.work, model=MODEL) <= 0.1
    longer = replace(plan.work, tokens=plan.work.tokens + 1, prefill_pairs=(chunk + 1) ** 2 // 2)
    assert iteration_s(longer, model=MODEL) > 0.1
    to = batch("sarathi", chunk_tokens=32)
    reader(to, 1, slack_s=9.0)
    prompt(to, 2, 900)
    assert shares(to.plan(0.0)) == {"r1": 1, "r2": 31}


@pytest.mark.parametrize("slack_s", [0.0, 0.05, 0.1, 0.2])
def test_slack_bounds_the_iteration(slack_s: float) -> None:
    """An iteration with a prompt ends before the poorest reader runs out, or has no prompt."""
    to = batch("slack")
    reader(to, 1, slack_s=slack_s)
    reader(to, 2, slack_s=5.0)
    prompt(to, 3, 900)
    plan = to.plan(0.0)
    assert {"r1", "r2"} <= shares(plan).keys()
    if "r3" in shares(plan):
        assert iteration_s(plan.work, model=MODEL) <= 0.95 * slack_s
    assert ("r3" in shares(plan)) == (slack_s >= 0.05)


DEAR = replace(ROOMY, latency=replace(MODEL, mixing=3.0))
"""Reading KV takes three times as long beside a prompt."""


@pytest.mark.parametrize("limits", [DEAR, replace(ROOMY, latency=None)])
def test_rich_readers_sit_out_while_a_prompt_is_computed(limits: EngineLimits) -> None:
    """With a prompt only the poor decode, without one everybody does; so too where nobody knows."""
    to = batch("readahead", limits=limits)
    reader(to, 1, slack_s=1.0)
    reader(to, 2, slack_s=5.0, context_tokens=800)
    assert shares(to.plan(0.0)) == {"r1": 1, "r2": 1}
    prompt(to, 3, 40)
    assert shares(to.plan(0.0)).keys() == {"r1", "r3"}
    to = batch("readahead", limits=limits, sit_out=False)
    reader(to, 2, slack_s=5.0)
    prompt(to, 3, 40)
    assert shares(to.plan(0.0)).keys() == {"r2", "r3"}


@pytest.mark.parametrize(("due_s", "sits"), [(0.3, False), (0.07, True), (0.04, False)])
def test_rich_readers_sit_out_if_a_prompt_is_in_time_then(due_s: float, sits: bool) -> None:
    """Their tokens cost the same later: they are postponed for a promise only."""
    to = batch("readahead")
    reader(to, 1, slack_s=5.0, context_tokens=3000)
    prompt(to, 2, 40, due_s=due_s)
    assert ("r1" not in shares(to.plan(0.0))) == sits


def test_rich_readers_decode_while_no_prompt_fits() -> None:
    """Sitting out would only keep the memory from which a prompt is waiting."""
    to = batch("readahead")
    reader(to, 1, slack_s=5.0)
    assert to.take(to.blocks_free - 3)
    prompt(to, 2, 40)
    plan = to.plan(0.0)
    assert shares(plan) == {"r1": 1}
    assert plan.repeats_max > 4


def test_iteration_ends_where_prompts_end() -> None:
    """What is put in behind a prompt does not make it late; else the iteration is filled."""
    for align, last in ((True, 7), (False, 90)):
        to = batch("readahead", align=align, cap_tokens=1000)
        for number, tokens, due_s in ((1, 40, 0.083), (2, 30, 0.5), (3, 90, 0.6)):
            prompt(to, number, tokens, due_s=due_s)
        plan = to.plan(0.0)
        assert shares(plan) == {"r1": 40, "r2": 30, "r3": last}
        assert (iteration_s(plan.work, model=MODEL) <= 0.083) == align


def test_iteration_holds_what_more_would_hardly_speed_up() -> None:
    """By the model, unless a knob says otherwise; without a model as much as ever."""
    for knobs, limits, most in (
        ({}, ROOMY, 40),
        ({"cap_tokens": 64}, ROOMY, 64),
        ({}, replace(ROOMY, latency=None, batch_tokens_max=4096), 1024),
    ):
        to = batch("readahead", limits=limits, **knobs)
        prompt(to, 1, 2000, due_s=9.0)
        assert shares(to.plan(0.0)) == {"r1": most}


def test_the_longest_is_sacrificed() -> None:
    """Where not all can be in time, the long prompt waits; in the order of due times it leads."""
    for is_on, first in ((True, "r2"), (False, "r1")):
        to = batch("readahead", sacrifice=is_on)
        prompt(to, 1, 800, due_s=0.3)
        for number in (2, 3):
            prompt(to, number, 40, due_s=0.4)
        assert next(iter(shares(to.plan(0.0)))) == first


def test_an_overdue_prompt_goes_first_whatever_the_slack() -> None:
    """Patience has an end, also where a reader's slack is used up."""
    to = batch("readahead", patience_s=5, least_tokens=16)
    late = prompt(to, 1, 800, due_s=1.0)
    poor = reader(to, 2, slack_s=0.0)
    assert shares(to.plan(0.0)) == {"r2": 1}
    poor.reads_until = 7.0
    assert shares(to.plan(7.0)) == {"r2": 1, "r1": 16}
    assert late in to.running


@pytest.mark.parametrize("policy", ["andes", "tokenflow"])
def test_one_with_nothing_to_read_takes_the_place_of_a_rich_one(policy: str) -> None:
    """The memory of who has plenty left goes to who has nothing."""
    knobs = {"horizon_s": 2.0} if policy == "andes" else {}
    to = Batch(limits=ROOMY, policy=make_policy(policy, knobs))
    rich = reader(to, 1, slack_s=60.0, context_tokens=60)
    poor = reader(to, 2, slack_s=0.1, context_tokens=60)
    assert to.take(to.blocks_free - 2)
    new = prompt(to, 3, 40, due_s=-2.0)
    new.arrived_at = -3.0
    plan = to.plan(0.0)
    assert shares(plan).keys() == {"r2", "r3"}
    assert to.waiting == [rich]
    assert {poor, new} == set(to.running)


@pytest.mark.parametrize("policy", ["andes", "tokenflow"])
def test_nobody_is_preempted_for_one_with_plenty(policy: str) -> None:
    """A newcomer who pushes out a starving reader has to wait."""
    knobs = {"horizon_s": 1.0} if policy == "andes" else {}
    to = Batch(limits=ROOMY, policy=make_policy(policy, knobs))
    reader(to, 1, slack_s=0.0, context_tokens=60)
    assert to.take(to.blocks_free - 2)
    prompt(to, 2, 40)
    assert shares(to.plan(0.0)) == {"r1": 1}
    assert to.preemptions == 0


def test_tokenflow_is_first_come_where_readers_want_more_than_there_is() -> None:
    """An engine that cannot keep up with its readers preempts nobody for balance."""
    to = batch("tokenflow")
    rich = reader(to, 1, slack_s=60.0, context_tokens=60)
    rich.pace_tok_s = 1e6
    assert to.take(to.blocks_free - 2)
    prompt(to, 2, 40, due_s=-2.0)
    assert shares(to.plan(0.0)) == {"r1": 1}
    assert to.preemptions == 0


def test_cached_prompt_tokens_are_not_computed() -> None:
    """A prefix that is there is skipped, also after a preemption."""
    to = batch("vllm-chunked", batch_tokens=64)
    one = sequence(1, prompt_tokens=50, cached_tokens=48)
    to.add(one)
    plan = to.plan(0.0)
    assert shares(plan) == {"r1": 2}
    assert to.commit(plan) == [one]
    with pytest.raises(ValueError, match="from 0 to 49, is 50"):
        to.add(sequence(2, prompt_tokens=50, cached_tokens=50))


@pytest.mark.parametrize("policy", POLICIES)
def test_knobs_are_checked(policy: str) -> None:
    """Each knob's range is enforced, and an unknown one is named."""
    for each in knobs_of(POLICIES[policy]):
        assert each.least <= each.default <= each.most
        if each.is_switch:
            continue
        for wrong in (each.least - 1, each.most + 1):
            value = int(wrong) if each.is_whole else wrong
            with pytest.raises(ValueError, match=f"{each.name} must be from"):
                make_policy(policy, {each.name: value})
        with pytest.raises(ValueError, match=f"{each.name} must be"):
            make_policy(policy, {each.name: float("nan")})
    with pytest.raises(ValueError, match="speed is no knob of"):
        make_policy(policy, {"speed": 1})
    with pytest.raises(ValueError, match="policy must be one of vllm, vllm-chunked"):
        make_policy("fast")


@pytest.mark.parametrize("policy", POLICIES)
def test_knobs_may_come_as_plain_numbers(policy: str) -> None:
    """As from a configuration file, which knows no other kind."""
    plain = {each.name: float(each.default) for each in knobs_of(POLICIES[policy])}
    assert make_policy(policy, plain) == make_policy(policy)


def test_policies_of_two_engines_share_nothing() -> None:
    """What one remembers is its own."""
    for name in POLICIES:
        one, other = Rounds(name), Rounds(name)
        one.arrive(sequence(1, prompt_tokens=8))
        one.carry_out(one.plan())
        assert not other.plan().entries
