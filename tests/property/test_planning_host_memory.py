"""A batch with host memory: whoever is parked, each block of device and host has one owner."""

from __future__ import annotations

import random

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
from wild_parking import WildParking

from readahead.core.planning.batch import Batch
from readahead.core.planning.host_memory import HostMemory
from readahead.core.planning.policy import Choice, EngineLimits, EngineView, Park, Plan
from readahead.core.planning.sequence import Sequence

SMALL = EngineLimits(
    kv_blocks=12, block_tokens=4, requests_max=3, batch_tokens_max=16, latency=LIMITS.latency
)
CONTEXT_TOKENS_MAX = SMALL.kv_blocks * SMALL.block_tokens
BLOCK_BYTES = 1000


class ParkingMachine(RuleBasedStateMachine):
    """Random arrivals, aborts, parks and resumes, whose copies are over at any time."""

    @initialize(seed=st.integers(0, 1 << 20), host_blocks=st.sampled_from([1, 8, 100]))
    def begin(self, seed: int, host_blocks: int) -> None:
        self.rounds = Rounds("vllm-chunked", SMALL)
        self.batch = self.rounds.batch
        self.host = HostMemory(blocks=host_blocks, block_bytes=BLOCK_BYTES)
        self.batch.host = self.host
        self.batch.policy = WildParking(random.Random(seed))
        self.out: list[Sequence] = []
        self.back: list[Sequence] = []
        self.computed: dict[Sequence, int] = {}
        """Before their parks."""
        self.arrived = 0

    @rule(prompt_tokens=st.integers(1, CONTEXT_TOKENS_MAX - 1), output_tokens=st.integers(1, 20))
    def arrive(self, prompt_tokens: int, output_tokens: int) -> None:
        self.arrived += 1
        most = CONTEXT_TOKENS_MAX - prompt_tokens
        one = sequence(
            self.arrived,
            prompt_tokens=prompt_tokens,
            output_tokens=min(output_tokens, most),
            now=self.rounds.now,
        )
        self.rounds.arrive(one)

    @precondition(lambda self: self.everybody())
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.everybody()))
        self.batch.end(one)
        for copies in (self.out, self.back):
            if one in copies:
                copies.remove(one)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def save(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.out))
        self.out.remove(one)
        free, coming = self.batch.blocks_free, self.host.blocks_coming
        self.batch.saved(one)
        assert self.batch.blocks_free - free == coming - self.host.blocks_coming > 0

    @precondition(lambda self: self.back)
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.back))
        self.back.remove(one)
        self.batch.loaded(one)
        assert one.computed == self.computed[one]

    @rule(share=st.floats(0, 1))
    def iterate(self, share: float) -> None:
        now, running = self.rounds.now, list(self.batch.running)
        before = {one: one.computed for one in running}
        plan = self.rounds.plan()
        self._move(plan, before)
        for one, _ in plan.entries:
            assert one in self.batch.running
            assert one not in self.host.parked
        assert all(one.moved_at <= now for one in self.everybody())
        if not plan.entries:
            self.rounds.now += 0.05
            return
        left = min(s.output_tokens_max - s.generated for s, _ in plan.entries)
        self.rounds.carry_out(plan, iterations=1 + int(share * (min(plan.repeats_max, left) - 1)))
        self.rounds.end_finished()

    def _move(self, plan: Plan, before: dict[Sequence, int]) -> None:
        for one in self.host.parked:
            if one in before:
                self.computed[one] = before[one]
        if plan.copies is None:
            return
        self.out += plan.copies.out
        for one in plan.copies.out:
            blocks = SMALL.blocks_for(before[one])
            assert self.host.copy_bytes(one) == blocks * BLOCK_BYTES
        for one in plan.copies.off:
            self.out.remove(one)
            assert one.computed == self.computed[one]
        self.back += plan.copies.back

    def everybody(self) -> list[Sequence]:
        if not hasattr(self, "batch"):
            return []
        return [*self.rounds.alive(), *self.host.parked]

    @invariant()
    def blocks_are_conserved(self) -> None:
        if hasattr(self, "batch"):
            self.batch.check(held_blocks=0)

    def teardown(self) -> None:
        """Once copies are made, everybody gets all tokens and nothing is left on the host."""
        if not hasattr(self, "batch"):
            return
        for _ in range(20_000):
            while self.out:
                self.batch.saved(self.out.pop())
            while self.back:
                self.batch.loaded(self.back.pop())
            self.iterate(0.0)
            if not self.everybody():
                break
        assert not self.everybody()
        assert self.batch.blocks_free == SMALL.kv_blocks
        assert self.host.blocks_free == self.host.blocks


def test_blocks_of_device_and_host_are_conserved() -> None:
    """Whoever is parked, copied or not, and whatever ends meanwhile."""
    run_state_machine_as_test(
        ParkingMachine,
        settings=settings(max_examples=60, stateful_step_count=40, deadline=None),
    )


class Told:
    """Does as it is told."""

    name = "told"

    def __init__(self) -> None:
        self.next = Choice(entries=[])
        self.seen: list[EngineView] = []

    def choose(self, view: EngineView, now: float) -> Choice:
        self.seen.append(view)
        return self.next


def two_readers(host_blocks: int, requests_max: int = 4) -> tuple[Batch, Told, list[Sequence]]:
    """Both decode, in 3 of 8 blocks each."""
    limits = EngineLimits(
        kv_blocks=8, block_tokens=4, requests_max=requests_max, batch_tokens_max=32
    )
    told = Told()
    host = HostMemory(blocks=host_blocks, block_bytes=BLOCK_BYTES)
    batch = Batch(limits=limits, policy=told, host=host)
    both = [sequence(number, prompt_tokens=11) for number in range(2)]
    for one in both:
        batch.add(one)
    told.next = Choice(entries=[(one, 11) for one in both])
    batch.commit(batch.plan(0.0))
    return batch, told, both


def test_blocks_come_free_once_the_copy_is_made() -> None:
    batch, told, (one, other) = two_readers(host_blocks=10)
    told.next = Choice(entries=[(one, 1), (other, 1)], park=[Park(one, True)])
    plan = batch.plan(1.0)
    assert [each for each, _ in plan.entries] == [other]
    assert plan.copies is not None
    assert plan.copies.out == (one,)
    assert batch.blocks_free == 2
    batch.commit(plan)
    told.next = Choice(entries=[])
    batch.plan(2.0)
    assert told.seen[-1].parked == [one]
    assert told.seen[-1].host is not None
    assert told.seen[-1].host.blocks_coming == 3
    assert told.seen[-1].host.blocks_free == 7
    batch.saved(one)
    assert batch.blocks_free == 5
    assert told.seen[-1].pulling == 0


def test_blocks_are_reserved_before_the_copy_comes_back() -> None:
    batch, told, (one, _) = two_readers(host_blocks=10)
    told.next = Choice(entries=[], park=[Park(one, True)])
    batch.plan(1.0)
    batch.saved(one)
    told.next = Choice(entries=[(one, 1)], resume=[one, one])
    plan = batch.plan(2.0)
    assert plan.copies is not None
    assert plan.copies.back == (one,)
    assert plan.entries == ()  # nobody runs without his KV
    assert batch.blocks_free == 2
    assert batch.host is not None
    assert batch.host.blocks_free == 7
    batch.loaded(one)
    assert one in batch.running
    assert (one.computed, one.missing) == (11, 1)
    assert batch.host.blocks_free == 10


def test_one_who_resumes_before_his_copy_is_made_runs_on() -> None:
    batch, told, (one, _) = two_readers(host_blocks=10)
    told.next = Choice(entries=[], park=[Park(one, True)])
    batch.plan(1.0)
    told.next = Choice(entries=[(one, 1)], resume=[one])
    plan = batch.plan(1.5)
    assert plan.copies is not None
    assert plan.copies.off == (one,)
    assert plan.copies.back == ()
    assert [each for each, _ in plan.entries] == [one]
    assert one.moved_at == 1.5
    batch.check(held_blocks=0)


def test_one_without_a_copy_is_computed_again() -> None:
    batch, told, (one, _) = two_readers(host_blocks=10)
    told.next = Choice(entries=[], park=[Park(one, False), Park(one, False)])
    plan = batch.plan(1.0)
    assert plan.copies is not None
    assert plan.copies.out == ()
    assert batch.blocks_free == 5
    told.next = Choice(entries=[(one, 12)], resume=[one])
    plan = batch.plan(2.0)
    assert plan.entries == ((one, 12),)
    assert batch.host is not None
    assert (batch.host.parks, batch.host.resumes, batch.host.refused) == (1, 1, 0)


def test_what_there_is_no_room_for_is_refused() -> None:
    """A copy that the host cannot hold; a return for which device blocks or seats are lacking."""
    batch, told, (one, other) = two_readers(host_blocks=2)
    told.next = Choice(entries=[(other, 1)], park=[Park(one, True)])
    batch.commit(batch.plan(1.0))
    assert batch.host is not None
    assert batch.host.refused == 1
    assert one in batch.running

    for seats, taken in ((4, 4), (1, 0)):
        batch, told, (one, _) = two_readers(host_blocks=10)
        told.next = Choice(entries=[], park=[Park(one, True)])
        batch.plan(1.0)
        batch.saved(one)
        assert batch.take(taken)
        batch.limits = EngineLimits(
            kv_blocks=8, block_tokens=4, requests_max=seats, batch_tokens_max=32
        )
        told.next = Choice(entries=[], resume=[one])
        batch.plan(2.0)
        assert batch.host is not None
        assert batch.host.refused == 1
        assert batch.host.parked == [one]


def test_one_who_is_preempted_by_the_same_choice_is_not_parked() -> None:
    batch, told, (one, _) = two_readers(host_blocks=10)
    told.next = Choice(entries=[], preempt=[one], park=[Park(one, True)])
    batch.plan(1.0)
    assert batch.waiting == [one]
    batch.check(held_blocks=0)


@pytest.mark.parametrize(("blocks", "block_bytes"), [(0, 1), (1, 0)])
def test_there_is_no_empty_host_memory(blocks: int, block_bytes: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        HostMemory(blocks=blocks, block_bytes=block_bytes)
