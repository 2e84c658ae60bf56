"""The emulated engine's scheduler: KV blocks are conserved and every sequence gets its tokens."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from readahead.services.engine.emulated_batch import Batch, Sequence

KV_BLOCKS = 12
BLOCK_TOKENS = 4
CONTEXT_TOKENS_MAX = KV_BLOCKS * BLOCK_TOKENS


class BatchMachine(RuleBasedStateMachine):
    """Random arrivals, aborts, pulls and handovers over a KV memory that is far too small."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = Batch(
            kv_blocks=KV_BLOCKS, block_tokens=BLOCK_TOKENS, requests_max=3, batch_tokens_max=16
        )
        self.alive: list[Sequence] = []
        self.pulling: list[Sequence] = []
        self.held: list[int] = []
        self.made: dict[Sequence, int] = {}

    @rule(
        prompt_tokens=st.integers(1, CONTEXT_TOKENS_MAX - 1),
        output_tokens=st.integers(1, 20),
        is_pulled=st.booleans(),
    )
    def arrive(self, prompt_tokens: int, output_tokens: int, is_pulled: bool) -> None:
        room = CONTEXT_TOKENS_MAX - prompt_tokens
        sequence = Sequence(
            prompt_tokens=prompt_tokens,
            output_tokens_max=min(output_tokens, room),
            is_pulled=is_pulled,
        )
        self.alive.append(sequence)
        self.made[sequence] = 0
        self.batch.add(sequence)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.alive))
        self._forget(sequence)
        self.batch.end(sequence)

    @precondition(lambda self: self.pulling)
    @rule(data=st.data(), has_kv=st.booleans())
    def land(self, data: st.DataObject, has_kv: bool) -> None:
        sequence = data.draw(st.sampled_from(self.pulling))
        self.pulling.remove(sequence)
        self.batch.pulled(sequence, has_kv=has_kv)

    @precondition(lambda self: self.held)
    @rule()
    def release(self) -> None:
        self.batch.give(self.held.pop())

    @rule(hand_over=st.booleans(), abort_first=st.booleans())
    def iterate(self, hand_over: bool, abort_first: bool) -> None:
        self._iterate(hand_over=hand_over, abort_first=abort_first)

    def _iterate(self, *, hand_over: bool, abort_first: bool) -> int:
        plan = self.batch.plan()
        self.pulling.extend(plan.pulls)
        assert plan.work.tokens == sum(tokens for _, tokens in plan.entries) <= 16
        assert len({id(sequence) for sequence, _ in plan.entries}) == len(plan.entries)
        if abort_first and plan.entries:  # a leg may leave in the middle of an iteration
            sequence = plan.entries[0][0]
            self._forget(sequence)
            self.batch.end(sequence)
        for sequence in self.batch.commit(plan):
            self.made[sequence] += 1
            assert sequence.generated == self.made[sequence]
            if hand_over and sequence.generated == 1:
                self._forget(sequence)
                self.held.append(self.batch.end_keeping_kv(sequence))
            elif sequence.generated == sequence.output_tokens_max:
                self._forget(sequence)
                self.batch.end(sequence)
        return len(plan.entries)

    def _forget(self, sequence: Sequence) -> None:
        self.alive.remove(sequence)
        if sequence in self.pulling:
            self.pulling.remove(sequence)

    @invariant()
    def blocks_are_conserved(self) -> None:
        self.batch.check(held_blocks=sum(self.held))

    def teardown(self) -> None:
        """Once handovers are gone and pulls have landed, everybody gets all tokens."""
        while self.held:
            self.release()
        left = sum(s.prompt_tokens + 30 for s in self.alive)
        for _ in range(left * (len(self.alive) + 1)):
            while self.pulling:
                self.batch.pulled(self.pulling.pop(), has_kv=True)
            self._iterate(hand_over=False, abort_first=False)
            self.batch.check(held_blocks=0)
            if not self.alive:
                break
        assert not self.alive
        assert self.batch.blocks_free == KV_BLOCKS


TestBatch = BatchMachine.TestCase
TestBatch.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
