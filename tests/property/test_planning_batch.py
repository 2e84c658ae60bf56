"""The batch, under every policy: blocks are conserved and every sequence gets its tokens."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from planning_rounds import LIMITS, Rounds, sequence

from readahead.core.planning.policies.registry import POLICIES
from readahead.core.planning.policy import EngineLimits, Plan

SMALL = EngineLimits(
    kv_blocks=12, block_tokens=4, requests_max=3, batch_tokens_max=16, latency=LIMITS.latency
)
CONTEXT_TOKENS_MAX = SMALL.kv_blocks * SMALL.block_tokens


class BatchMachine(RuleBasedStateMachine):
    """Random arrivals, aborts, pulls and handovers over a KV memory that is far too small."""

    policy = "vllm-chunked"

    @initialize()
    def begin(self) -> None:
        self.rounds = Rounds(self.policy, SMALL)
        self.batch = self.rounds.batch
        self.held: list[int] = []
        self.arrived = 0

    @rule(
        prompt_tokens=st.integers(1, CONTEXT_TOKENS_MAX - 1),
        output_tokens=st.integers(1, 20),
        is_pulled=st.booleans(),
        cached=st.sampled_from([0, 0, 4, 12]),
    )
    def arrive(self, prompt_tokens: int, output_tokens: int, is_pulled: bool, cached: int) -> None:
        self.arrived += 1
        one = sequence(
            self.arrived,
            prompt_tokens=prompt_tokens,
            output_tokens=min(output_tokens, CONTEXT_TOKENS_MAX - prompt_tokens),
            now=self.rounds.now,
            is_pulled=is_pulled,
            cached_tokens=min(cached, prompt_tokens - 1),
        )
        self.rounds.arrive(one)

    @precondition(lambda self: self.rounds.alive())
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self.batch.end(data.draw(st.sampled_from(self.rounds.alive())))

    @precondition(lambda self: self.batch.pulling)
    @rule(data=st.data(), has_kv=st.booleans())
    def land(self, data: st.DataObject, has_kv: bool) -> None:
        self.batch.pulled(data.draw(st.sampled_from(self.batch.pulling)), has_kv=has_kv)

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.batch.give(self.held.pop())

    @rule(blocks=st.integers(1, SMALL.kv_blocks))
    def hold(self, blocks: int) -> None:
        if self.batch.take(blocks):
            self.held.append(blocks)

    @rule(hand_over=st.booleans(), abort_first=st.booleans(), share=st.floats(0, 1))
    def iterate(self, hand_over: bool, abort_first: bool, share: float) -> None:
        self._iterate(hand_over=hand_over, abort_first=abort_first, share=share)

    def _iterate(self, *, hand_over: bool, abort_first: bool, share: float = 0.0) -> None:
        plan = self.rounds.plan()
        self._check(plan)
        if not plan.entries:
            self.rounds.now += 0.05
            return
        if abort_first:  # a leg may leave in the middle of an iteration
            self.batch.end(plan.entries[0][0])
        left = min(s.output_tokens_max - s.generated for s, _ in plan.entries)
        iterations = 1 + int(share * (min(plan.repeats_max, left) - 1))
        for one in self.rounds.carry_out(plan, iterations=iterations):
            assert one.generated == self.rounds.made[one]
            if hand_over and one.generated == 1:
                self.held.append(self.batch.end_keeping_kv(one))
        self.rounds.end_finished()

    def _check(self, plan: Plan) -> None:
        """Limits hold, and no entry computes more than is missing, or twice."""
        assert plan.work.tokens == sum(tokens for _, tokens in plan.entries)
        assert plan.work.tokens <= SMALL.batch_tokens_max
        assert plan.work.requests == len({s for s, _ in plan.entries}) == len(plan.entries)
        for one, tokens in plan.entries:
            assert 1 <= tokens <= one.missing
            assert one in self.batch.running
            assert one.blocks * SMALL.block_tokens >= one.computed + tokens
        if plan.repeats_max > 1:
            assert all(tokens == 1 or tokens < one.missing for one, tokens in plan.entries)
            assert not plan.pulls

    @invariant()
    def blocks_are_conserved(self) -> None:
        if hasattr(self, "batch"):
            self.batch.check(held_blocks=sum(self.held))

    def teardown(self) -> None:
        """Once nothing is held and pulls have landed, everybody gets all tokens."""
        if not hasattr(self, "batch"):
            return
        while self.held:
            self.release()
        alive = self.rounds.alive()
        left = sum(s.prompt_tokens + 30 for s in alive)
        for _ in range(left * (len(alive) + 1)):
            while self.batch.pulling:
                self.batch.pulled(self.batch.pulling[0], has_kv=True)
            self._iterate(hand_over=False, abort_first=False)
            self.batch.check(held_blocks=0)
            if not self.rounds.alive():
                break
        assert not self.rounds.alive()
        assert self.batch.blocks_free == SMALL.kv_blocks


@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_are_conserved_and_everybody_is_served(policy: str) -> None:
    """Whatever happens, each block has one owner, limits hold, and nobody starves."""
    machine = type(f"BatchMachine_{policy}", (BatchMachine,), {"policy": policy})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=40, stateful_step_count=40, deadline=None),
    )
