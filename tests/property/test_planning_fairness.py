"""Room is used, and those that came first are not passed by policies that promise it."""

from __future__ import annotations

import random

import pytest
from planning_rounds import Rounds, random_sequences, sequence

from readahead.core.planning.policies.registry import POLICIES

FIRST_COME = ("vllm", "vllm-chunked", "sarathi")


def rounds_of(policy: str, seed: int) -> Rounds:
    """A batch in the midst of its work, with people who wait."""
    draw, rounds = random.Random(f"fair/{seed}"), Rounds(policy)
    for number, (_, prompt, output) in enumerate(random_sequences(draw, 12)):
        rounds.arrive(sequence(number, prompt_tokens=prompt, output_tokens=output, now=rounds.now))
        for _ in range(draw.randint(0, 3)):
            rounds.carry_out(rounds.plan())
            rounds.end_finished()
    return rounds


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(12))
def test_work_is_conserved(policy: str, seed: int) -> None:
    """While anybody is here there is something to do: all fit alone, and nothing else holds KV."""
    rounds = rounds_of(policy, seed)
    for _ in range(2000):
        if not rounds.alive():
            break
        plan = rounds.plan()
        assert plan.entries
        rounds.carry_out(plan)
        rounds.end_finished()
    assert not rounds.alive()


@pytest.mark.parametrize("policy", POLICIES)
def test_one_who_waited_for_held_blocks_runs_once_they_are_free(policy: str) -> None:
    """Nobody arrives, ends or decodes meanwhile: a decision must not outlive its reason."""
    rounds = Rounds(policy)
    assert rounds.batch.take(rounds.limits.kv_blocks - 1)
    rounds.arrive(sequence(1, prompt_tokens=40))
    assert not rounds.plan().entries
    rounds.batch.give(rounds.limits.kv_blocks - 1)
    assert rounds.plan().entries


@pytest.mark.parametrize("policy", FIRST_COME)
@pytest.mark.parametrize("seed", range(12))
def test_first_come_is_first_let_in(policy: str, seed: int) -> None:
    """Nobody is let in before one that came earlier, and only the latest give way."""
    rounds = rounds_of(policy, seed)
    for _ in range(2000):
        if not rounds.alive():
            break
        rounds.carry_out(rounds.plan())
        rounds.end_finished()
        inside = [int(s.request_id[1:]) for s in rounds.batch.running]
        outside = [int(s.request_id[1:]) for s in rounds.batch.waiting]
        assert inside + outside == sorted(inside + outside)


@pytest.mark.parametrize("policy", ["readahead", "slack"])
def test_a_long_prompt_is_not_passed_for_ever(policy: str) -> None:
    """A prompt that cannot be in time is done at last, though short ones keep coming."""
    rounds = Rounds(policy)
    long = sequence(0, prompt_tokens=80, output_tokens=1)
    rounds.arrive(long)
    number = 0
    while long in rounds.alive() and rounds.now < 20:
        while len(rounds.alive()) < 5:
            number += 1
            rounds.arrive(sequence(number, prompt_tokens=8, output_tokens=3, now=rounds.now))
        rounds.carry_out(rounds.plan())
        rounds.end_finished()
    assert rounds.made[long] == 1
