"""A plan carried out k times at once is k plans carried out one after the other."""

from __future__ import annotations

import random

import pytest
from planning_rounds import Rounds, random_sequences, sequence, shown

from readahead.core.planning.policies.registry import POLICIES
from readahead.core.planning.policy import EngineLimits

ITERATIONS_MAX = 1500


def run(policy: str, seed: int, *, step_by_step: bool) -> tuple[list[object], int, int]:
    """All that is planned and the state after each round; the longest jump, and all iterations."""
    draw = random.Random(f"repeats/{seed}")
    rounds, trace, longest = Rounds(policy), [], 1
    arrivals = random_sequences(draw, 14)
    next_at, number = 0.0, 0
    choices = random.Random(f"jumps/{seed}")
    while arrivals or rounds.alive():
        assert rounds.iterations < ITERATIONS_MAX
        while arrivals and next_at <= rounds.now:
            gap_s, prompt, output = arrivals.pop(0)
            number += 1
            pace_tok_s = draw.choice([3.0, 5.0, 30.0])
            rounds.arrive(
                sequence(
                    number,
                    prompt_tokens=prompt,
                    output_tokens=output,
                    now=rounds.now,
                    pace_tok_s=pace_tok_s,
                )
            )
            next_at += gap_s
        plan = rounds.plan()
        if not plan.entries:
            rounds.now = max(next_at, rounds.now + 1e-3)
            continue
        left = min(s.output_tokens_max - s.generated for s, _ in plan.entries)
        jump = choices.randint(1, max(1, min(plan.repeats_max, left)))
        longest = max(longest, jump)
        trace.append(shown(plan))
        if step_by_step:
            rounds.carry_out(plan)
            for _ in range(jump - 1):
                again = rounds.plan()
                assert shown(again)[:2] == shown(plan)[:2]  # type: ignore[index]
                rounds.carry_out(again)
        else:
            rounds.carry_out(plan, iterations=jump)
        rounds.batch.check(held_blocks=0)
        trace.append(rounds.state())
        rounds.end_finished()
    return trace, longest, rounds.batch.preemptions


@pytest.mark.parametrize("policy", POLICIES)
def test_repeated_plan_is_as_many_plans(policy: str) -> None:
    """Whenever a plan may be repeated k times, planning anew each time gives the same plan."""
    longest = preemptions = 0
    for seed in range(25):
        jumped, jump, preempted = run(policy, seed, step_by_step=False)
        stepped, _, _ = run(policy, seed, step_by_step=True)
        assert jumped == stepped
        longest, preemptions = max(longest, jump), preemptions + preempted
    assert longest > 3
    assert preemptions > 0


@pytest.mark.parametrize("policy", ["vllm", "vllm-chunked", "sarathi"])
def test_chunks_of_one_prompt_are_one_plan(policy: str) -> None:
    """A prompt of many chunks is planned twice: all whole chunks, then what is left."""
    rounds = Rounds(policy)
    rounds.arrive(sequence(1, prompt_tokens=80))
    plan = rounds.plan()
    ((_, tokens),) = plan.entries
    whole = (80 - 1) // tokens
    assert plan.repeats_max == whole > 1
    assert rounds.carry_out(plan, iterations=whole) == []
    last = rounds.plan()
    assert last.entries[0][1] == 80 - whole * tokens
    assert last.repeats_max == 1
    assert [one.generated for one in rounds.carry_out(last)] == [1]


@pytest.mark.parametrize("policy", POLICIES)
def test_plans_are_a_function_of_what_happened(policy: str) -> None:
    """The same arrivals give the same plans, to the last byte."""
    assert repr(run(policy, 7, step_by_step=False)) == repr(run(policy, 7, step_by_step=False))


@pytest.mark.parametrize("block_tokens", [1, 3, 16])
@pytest.mark.parametrize("seed", range(20))
def test_repeats_are_as_many_as_blocks_allow(block_tokens: int, seed: int) -> None:
    """One more repetition than allowed would need a block that is not there."""
    draw = random.Random(f"blocks/{block_tokens}/{seed}")
    limits = EngineLimits(
        kv_blocks=draw.randint(12, 60) * 16 // block_tokens,
        block_tokens=block_tokens,
        requests_max=8,
        batch_tokens_max=4096,
    )
    rounds = Rounds("vllm-chunked", limits)
    for number in range(draw.randint(1, 5)):
        rounds.arrive(sequence(number, prompt_tokens=draw.randint(1, 30), output_tokens=9999))
    rounds.carry_out(rounds.plan())
    plan = rounds.plan()
    assert len(plan.entries) == len(rounds.batch.running)
    k = plan.repeats_max

    def needed(iterations: int) -> int:
        return sum(limits.blocks_for(s.computed + iterations) - s.blocks for s, _ in plan.entries)

    assert needed(k) <= rounds.batch.blocks_free < needed(k + 1)
    rounds.carry_out(plan, iterations=k)
    rounds.batch.check(held_blocks=0)
    assert rounds.batch.preemptions == 0
    with pytest.raises(ValueError, match=f"from 1 to {k}"):
        rounds.batch.commit(plan, iterations=k + 1)
