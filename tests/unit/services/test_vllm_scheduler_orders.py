"""What choices mean for vLLM's scheduler, on requests that only look like vLLM's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from readahead.core.planning.policy import Choice, EngineLimits, EngineView, HostRoom, Park
from readahead.services.engine.vllm_scheduler_orders import orders_for
from readahead.services.engine.vllm_scheduler_sequences import (
    EngineSequence,
    Sequences,
    leg_facts,
)
from readahead.services.engine.vllm_slack import ReaderNews, Slot

BLOCK = 16
LAG_S = 0.5


@dataclass(slots=True)
class Params:
    extra_args: dict[str, Any] | None = None


@dataclass(slots=True, eq=False)
class FakeRequest:
    """The parts of vLLM's request that are read."""

    request_id: str
    num_prompt_tokens: int
    num_computed_tokens: int = 0
    output: int = 0
    num_output_placeholders: int = 0
    max_tokens: int = 100
    sampling_params: Params = field(default_factory=Params)
    kv_transfer_params: dict[str, Any] | None = None

    @property
    def _output_token_ids(self) -> list[int]:
        return [0] * self.output

    @property
    def _all_token_ids(self) -> list[int]:
        return [0] * (self.num_prompt_tokens + self.output)


class World:
    """Running and waiting requests, and a view of them."""

    def __init__(self, *, blocks_free: int = 100) -> None:
        self.sequences = Sequences(block_tokens=BLOCK, lag_s=LAG_S)
        self.running: list[FakeRequest] = []
        self.waiting: list[FakeRequest] = []
        self.parked: list[FakeRequest] = []
        self.blocks_free = blocks_free

    def decoding(self, name: str, *, prompt: int = 20, output: int = 1) -> FakeRequest:
        request = FakeRequest(name, prompt, prompt + output - 1, output)
        return self._run(request)

    def begun(self, name: str, *, prompt: int, computed: int) -> FakeRequest:
        return self._run(FakeRequest(name, prompt, computed))

    def queued(self, name: str, *, prompt: int, pulled: bool = False) -> FakeRequest:
        transfer = {"do_remote_prefill": True} if pulled else None
        request = FakeRequest(name, prompt, kv_transfer_params=transfer)
        self.sequences.add(request, now=0.0, cached_tokens=0)
        self.waiting.append(request)
        return request

    def away(self, name: str, *, is_copied: bool) -> FakeRequest:
        request = FakeRequest(name, 20, 0, 5)
        self.sequences.add(request, now=0.0, cached_tokens=0)
        self.sequences.moved(request, 0.5, is_copied=is_copied)
        self.parked.append(request)
        return request

    def _run(self, request: FakeRequest) -> FakeRequest:
        self.sequences.add(request, now=0.0, cached_tokens=0)
        self.running.append(request)
        return request

    def view(self) -> tuple[EngineView, dict[str, EngineSequence]]:
        running = self.sequences.running(self.running, 1.0)
        waiting = self.sequences.waiting(self.waiting, 1.0)
        parked = self.sequences.waiting(self.parked, 1.0)
        limits = EngineLimits(
            kv_blocks=1000, block_tokens=BLOCK, requests_max=64, batch_tokens_max=2048
        )
        view = EngineView(
            limits=limits,
            blocks_free=self.blocks_free,
            running=running,
            waiting=waiting,
            pulling=0,
            parked=parked,
            host=HostRoom(blocks_free=9, block_bytes=1),
        )
        return view, {s.request_id: s for s in (*running, *waiting, *parked)}


def test_everybody_decodes_and_nobody_waits() -> None:
    """vLLM does that unasked, and the plan holds as long as the policy says."""
    world = World()
    world.decoding("a")
    world.decoding("b")
    view, by = world.view()
    orders = orders_for(Choice(entries=[(by["b"], 1), (by["a"], 1)], holds_for=9), view)
    assert orders.is_plain
    assert not orders.is_empty
    assert orders.holds_for == 9


def test_full_engine_lets_nobody_in_by_itself() -> None:
    """So that those who wait need not be hidden; with room for one more they must be."""
    world = World()
    for index in range(63):
        world.decoding(f"a{index}")
    world.queued("waits", prompt=5)
    view, by = world.view()
    choice = Choice(entries=[(by[f"a{index}"], 1) for index in range(63)])
    assert not orders_for(choice, view).is_plain
    world.decoding("a63")
    view, by = world.view()
    choice = Choice(entries=[(by[f"a{index}"], 1) for index in range(64)])
    assert orders_for(choice, view).is_plain


def test_those_who_sit_out_and_the_budget() -> None:
    """Only the chosen run; prompts come behind those who decode; the budget is their sum."""
    world = World()
    world.decoding("sits")
    poor = world.decoding("poor")
    first = world.queued("first", prompt=30)
    world.queued("other", prompt=40)
    second = world.queued("second", prompt=50)
    view, by = world.view()
    choice = Choice(entries=[(by["second"], 50), (by["first"], 12), (by["poor"], 1)])
    orders = orders_for(choice, view)
    assert orders.run == [poor]
    assert orders.admit == [second, first]
    assert orders.tokens == 63
    assert orders.chunk_tokens == 0


def test_partial_prompt_ends_the_budget() -> None:
    """The one that is computed in part comes last among those that run."""
    world = World()
    part = world.begun("part", prompt=500, computed=100)
    whole = world.begun("whole", prompt=60, computed=40)
    poor = world.decoding("poor")
    view, by = world.view()
    choice = Choice(entries=[(by["part"], 64), (by["whole"], 20), (by["poor"], 1)])
    orders = orders_for(choice, view)
    assert orders.run == [whole, poor, part]
    assert orders.tokens == 85


def test_second_partial_prompt_sits_out() -> None:
    """A budget ends but one."""
    world = World()
    world.begun("late", prompt=500, computed=100)
    early = world.begun("early", prompt=500, computed=100)
    view, by = world.view()
    orders = orders_for(Choice(entries=[(by["early"], 64), (by["late"], 30)]), view)
    assert orders.run == [early]
    assert orders.tokens == 64


@pytest.mark.parametrize(
    ("waiting_tokens", "runs", "tokens", "chunk"), [(40, True, 104, 64), (90, False, 90, 0)]
)
def test_partial_prompt_behind_a_waiting_one(
    waiting_tokens: int, runs: bool, tokens: int, chunk: int
) -> None:
    """A longest chunk keeps it off the other's tokens; where that would cut the other, it waits."""
    world = World()
    part = world.begun("part", prompt=500, computed=100)
    short = world.queued("short", prompt=waiting_tokens)
    view, by = world.view()
    choice = Choice(entries=[(by["short"], waiting_tokens), (by["part"], 64)])
    orders = orders_for(choice, view)
    assert orders.run == ([part] if runs else [])
    assert orders.admit == [short]
    assert (orders.tokens, orders.chunk_tokens) == (tokens, chunk)


def test_victims_give_way_while_blocks_are_short() -> None:
    """In the policy's order, never one that runs already, and then nobody is let in."""
    world = World(blocks_free=0)
    full = world.decoding("full", prompt=BLOCK, output=1)  # its next token needs a block
    rich = world.decoding("rich", prompt=40)
    poor = world.decoding("poor", prompt=40)
    world.queued("waits", prompt=5)
    view, by = world.view()
    choice = Choice(
        entries=[(by["full"], 1), (by["poor"], 1), (by["rich"], 1), (by["waits"], 5)],
        victims=[by["full"], by["rich"], by["poor"]],
    )
    orders = orders_for(choice, view)
    assert orders.give_up == [full]
    assert orders.run == [poor, rich]
    assert orders.admit == []

    choice = Choice(entries=choice.entries, victims=[by["rich"], by["poor"]])
    orders = orders_for(choice, view)
    assert orders.give_up == [rich]
    assert orders.run == [full, poor]


def test_sequence_without_a_block_is_left_out() -> None:
    """Where nobody may give way, it sits out and the others go on."""
    world = World(blocks_free=0)
    world.decoding("full", prompt=BLOCK, output=1)
    poor = world.decoding("poor", prompt=40)
    view, by = world.view()
    orders = orders_for(Choice(entries=[(by["full"], 1), (by["poor"], 1)]), view)
    assert orders.run == [poor]
    assert orders.give_up == []


def test_pull_needs_a_budget() -> None:
    """vLLM begins pulls only while tokens are left."""
    world = World()
    pulled = world.queued("pulled", prompt=300, pulled=True)
    view, by = world.view()
    orders = orders_for(Choice(entries=[(by["pulled"], 0)]), view)
    assert orders.admit == [pulled]
    assert orders.tokens == 1


def test_named_victims_lose_their_kv() -> None:
    """And do not run, whatever else the choice says."""
    world = World()
    out = world.decoding("out")
    stays = world.decoding("stays")
    view, by = world.view()
    choice = Choice(entries=[(by["out"], 1), (by["stays"], 1)], preempt=[by["out"]])
    orders = orders_for(choice, view)
    assert orders.give_up == [out]
    assert orders.run == [stays]


def test_each_of_the_view_is_taken_once() -> None:
    """Named twice he still runs once, and one who is not in the view does not run at all."""
    world, elsewhere = World(), World()
    here = world.decoding("here")
    world.decoding("idle")
    elsewhere.decoding("gone")
    view, by = world.view()
    _, others = elsewhere.view()
    choice = Choice(
        entries=[(by["here"], 1), (others["gone"], 1), (by["here"], 1)], preempt=[others["gone"]]
    )
    orders = orders_for(choice, view)
    assert orders.run == [here]
    assert orders.give_up == []
    assert orders.tokens == 1


def test_parked_ones_leave_and_those_who_resume_come_first() -> None:
    """One without a copy is computed again: he only joins those that wait."""
    world = World()
    goes = world.decoding("goes")
    stays = world.decoding("stays")
    copied = world.away("copied", is_copied=True)
    bare = world.away("bare", is_copied=False)
    new = world.queued("new", prompt=10)
    view, by = world.view()
    orders = orders_for(
        Choice(
            entries=[(by["goes"], 1), (by["stays"], 1), (by["new"], 10)],
            park=[Park(by["goes"], True)],
            resume=[by["copied"], by["bare"]],
        ),
        view,
    )
    assert orders.park == [(goes, True)]
    assert orders.run == [stays]
    assert orders.resume == [copied, bare]
    assert orders.admit == [copied, new]
    assert orders.tokens == 1 + 10 + 1


def test_pull_begins_beside_those_who_decode() -> None:
    """They use up the budget before anybody who waits is looked at, but for what is added."""
    world = World()
    world.decoding("a")
    world.decoding("b")
    world.queued("pulled", prompt=40, pulled=True)
    view, by = world.view()
    entries = [(by["a"], 1), (by["b"], 1), (by["pulled"], 0)]
    assert orders_for(Choice(entries=entries), view).tokens == 3


def test_prompt_in_part_leaves_a_pull_its_budget() -> None:
    """By a longest chunk, where nobody needs a longer one."""
    world = World()
    world.begun("part", prompt=200, computed=32)
    world.queued("pulled", prompt=40, pulled=True)
    view, by = world.view()
    orders = orders_for(Choice(entries=[(by["pulled"], 0), (by["part"], 64)]), view)
    assert (orders.chunk_tokens, orders.tokens) == (64, 65)


def test_moves_alone_are_something_to_do() -> None:
    """A load begins only while there is a budget; a park needs none."""
    world = World()
    world.decoding("goes")
    world.away("copied", is_copied=True)
    view, by = world.view()
    orders = orders_for(Choice(entries=[], resume=[by["copied"]]), view)
    assert (orders.tokens, orders.is_empty) == (1, False)
    orders = orders_for(Choice(entries=[], park=[Park(by["goes"], False)]), view)
    assert (orders.tokens, orders.is_empty) == (0, False)


def test_only_those_are_moved_who_can_be() -> None:
    """One who loses his KV is not parked as well, nor does one resume who is not parked."""
    world = World(blocks_free=0)
    world.decoding("out")
    world.decoding("goes", prompt=64)
    world.decoding("full", prompt=16)
    view, by = world.view()
    choice = Choice(
        entries=[(by["full"], 1)],
        preempt=[by["out"]],
        victims=[by["goes"]],
        park=[Park(by["out"], True), Park(by["goes"], True)],
        resume=[by["full"]],
    )
    orders = orders_for(choice, view)
    assert [request.request_id for request in orders.give_up] == ["out"]
    assert [request.request_id for request, _ in orders.park] == ["goes"]
    assert orders.resume == orders.admit == []


def test_one_who_was_parked_waits_for_his_copy_until_he_loses_it() -> None:
    """Loaded like KV from elsewhere; after a preemption he is computed again."""
    world = World()
    request = world.away("copied", is_copied=True)
    [sequence] = world.sequences.waiting([request], 1.0)
    assert (sequence.is_pulled, sequence.is_copied, sequence.moved_at) == (True, True, 0.5)
    world.sequences.preempted(request)
    [sequence] = world.sequences.waiting([request], 1.0)
    assert (sequence.is_pulled, sequence.is_copied) == (False, False)


def test_choice_of_nobody_is_empty() -> None:
    """So that vLLM's own order is taken instead."""
    world = World()
    world.decoding("a")
    view, _ = world.view()
    assert orders_for(Choice(entries=[]), view).is_empty


def test_reader_is_followed_by_the_tokens_made() -> None:
    """The first is due a word after his request; each one buys a word, a delivery lag later."""
    sequences = Sequences(block_tokens=BLOCK, lag_s=LAG_S)
    facts = leg_facts(pace_tok_s=2.0, arrived_at=10.0, slot=None)
    request = FakeRequest("a", 20, sampling_params=Params({"readahead": facts}))
    sequences.add(request, now=11.0, cached_tokens=0)
    [sequence] = sequences.waiting([request], 11.0)
    assert sequence.due_at == 10.5 - LAG_S
    assert (sequence.missing, sequence.blocks) == (20, 0)
    request.num_computed_tokens, request.num_output_placeholders = 20, 1
    [sequence] = sequences.running([request], 12.0)
    assert (sequence.missing, sequence.generated, sequence.blocks) == (1, 1, 2)
    request.num_output_placeholders, request.output = 0, 1
    [sequence] = sequences.running([request], 12.0)
    assert sequence.reads_until == pytest.approx(12.0 + LAG_S + 0.5 - LAG_S)
    request.output, request.num_computed_tokens = 11, 30
    [sequence] = sequences.running([request], 12.2)
    assert sequence.reads_until == pytest.approx(12.5 + 10 / 2.0)


def test_acknowledgement_and_pace_correct_the_clock() -> None:
    """News for the slot of one that has ended goes nowhere."""
    sequences = Sequences(block_tokens=BLOCK, lag_s=0.0)
    slot = Slot(number=3, epoch=1)
    facts = leg_facts(pace_tok_s=2.0, arrived_at=0.0, slot=slot)
    request = FakeRequest("a", 20, 30, 11, sampling_params=Params({"readahead": facts}))
    sequences.add(request, now=0.0, cached_tokens=0)
    [sequence] = sequences.running([request], 1.0)
    before = sequence.reads_until
    read = ReaderNews(slot=slot, pace_tok_s=0.0, tokens_read=10, at_s=1.0)
    sequences.learn([ReaderNews(slot=Slot(number=3, epoch=2), pace_tok_s=9, tokens_read=1, at_s=1)])
    assert sequence.reads_until == before
    sequences.learn([read])
    assert sequence.reads_until <= 1.0 + 2 / 2.0 < before
    sequences.learn([ReaderNews(slot=slot, pace_tok_s=8.0, tokens_read=-1, at_s=1.0)])
    assert sequence.pace_tok_s == 8.0
    assert sequence.reads_until <= 1.0 + 2 / 8.0
    sequences.remove(request)
    assert sequence.is_ended
    assert len(sequences) == 0
    sequences.learn([read])
