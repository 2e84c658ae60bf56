"""Laws of migration, against workers and readers that do anything at any moment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from router_world import CONFIG, LAWS, World

from readahead.core.cluster import WorkerLoad
from readahead.core.config import MIGRATION_TRIGGERS, MigrationConfig
from readahead.core.errors import Reason
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G, LatencyModel
from readahead.core.messages import (
    AbortMigration,
    CancelLeg,
    Command,
    EndRequest,
    Event,
    MigrateLeg,
    MigrationCommitted,
    MigrationFailed,
    ReadingReported,
    RequestArrived,
    StepObserved,
    TokensMade,
)
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import Leg, RequestId, WorkerId
from readahead.core.router_state import RouterState

MOVES = MigrationConfig(
    interval_s=0.5,
    cooldown_s=3.0,
    moves_per_worker_max=1,
    downtime_s=0.2,
    margin_s=0.0,
    kv_share_max=1.0,
    load_below_tokens=1e6,
    load_gap_tokens=0.0,
)


class MovingWorld(World):
    """Decode workers that take part in moves, or not, or die in the middle of one."""

    def __init__(self) -> None:
        self.latency: LatencyModel | None = None
        super().__init__()
        self.moves: dict[RequestId, MigrateLeg] = {}
        self.over: list[MigrateLeg] = []
        self.moved_at: dict[RequestId, float] = {}
        self.clocks: dict[RequestId, ReadingClock] = {}
        self.prompts: dict[RequestId, int] = {}

    def core(self) -> RouterState:
        return RouterState(self.config, latency=self.latency)

    @initialize()
    def start(self) -> None:
        """Nobody is there before the settings are chosen."""

    @initialize(
        trigger=st.sampled_from([*MIGRATION_TRIGGERS, "cover", "need"]),
        at_once=st.integers(1, 2),
        latency=st.sampled_from([None, LLAMA_3_1_8B_A100_80G]),
        tokens=st.integers(1, 8),
        dt=st.floats(0.05, 2),
        has_third=st.booleans(),
    )
    def open(
        self,
        trigger: str,
        at_once: int,
        latency: LatencyModel | None,
        tokens: int,
        dt: float,
        has_third: bool,
    ) -> None:
        """Two decode on one worker when others come."""
        migration = replace(MOVES, trigger=trigger, moves_per_worker_max=at_once)
        self.config, self.latency = replace(CONFIG, migration=migration), latency
        self.state = self.core()
        self.join("d1")
        for _ in range(2):
            self.arrive_now(prompt_tokens=20, output_tokens=50, patience=None)
        self.join("d2")
        if has_third:
            self.join("d3")
        self.decode(tokens, dt, free=64)

    def send(self, event: Event) -> None:
        if isinstance(event, RequestArrived):
            self.clocks[event.request_id] = ReadingClock(pace_tok_s=5.0, commit_s=self.now)
            self.prompts[event.request_id] = event.prompt_tokens
        if isinstance(event, StepObserved):
            for made in event.made:
                self.clocks[made.request_id].deliver(made.tokens, now=self.now)
        super().send(event)

    def perform(self, command: Command) -> None:
        request_id = command.request_id
        match command:
            case MigrateLeg():
                self.begin(command)
            case AbortMigration():
                assert request_id in self.live, "a command after the end"
                self.end_move(command)
            case CancelLeg() if request_id in self.live:
                assert request_id not in self.moves, "its move was not called off first"
            case EndRequest():
                assert request_id not in self.moves, "a move outlived its request"
        if not isinstance(command, MigrateLeg | AbortMigration):
            super().perform(command)

    def begin(self, command: MigrateLeg) -> None:
        request_id, migration = command.request_id, self.config.migration
        hypothesis.note(f"{self.now:.2f} {command}")
        hypothesis.event(f"{migration.trigger} moves")
        leg = self.legs[request_id, command.attempt]
        assert request_id in self.live
        assert request_id not in self.moves, "two moves at once"
        assert self.delivered[request_id], "moved before its first token"
        assert leg.worker_id == command.source != command.target
        assert command.target in self.workers, "moved to a lost worker"
        assert command.target not in self.draining, "moved to a draining worker"
        rested = self.moved_at.get(request_id, -math.inf) + migration.cooldown_s
        assert self.now >= rested, "its cooldown"
        slack_s = self.clocks[request_id].slack_s(self.now)
        context = self.prompts[request_id] + self.delivered[request_id]
        match migration.trigger:
            case "none":
                raise AssertionError("nobody asked for moves")
            case "cover":
                assert slack_s >= migration.downtime_s, "the downtime would show"
            case "need":
                is_needy = slack_s <= migration.landing_s(context)
                assert is_needy or command.source in self.draining, "he had text left"
                assert is_needy or slack_s >= migration.downtime_s
        self.moves[request_id] = command

    def end_move(self, told: AbortMigration | MigrateLeg) -> None:
        move = self.moves.pop(told.request_id)
        assert (move.attempt, move.move, move.source, move.target) == (
            told.attempt,
            told.move,
            told.source,
            told.target,
        )
        self.over.append(move)
        self.moved_at[move.request_id] = self.now

    @precondition(lambda self: self.moves)
    @rule()
    def crowd(self) -> None:
        """As many arrive as take all seats."""
        for _ in range(4):
            self.arrive_now(prompt_tokens=20, output_tokens=50, patience=None)

    @precondition(lambda self: self.moves)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        move = data.draw(st.sampled_from(list(self.moves.values())))
        self.end_move(move)
        hypothesis.event("a move commits")
        leg = self.legs[move.request_id, move.attempt]
        self.legs[move.request_id, move.attempt] = replace(leg, worker_id=move.target)
        self.send(committed(move))
        assert move.request_id in self.live

    @precondition(lambda self: self.moves)
    @rule(data=st.data(), reason=st.sampled_from([Reason.OVERLOADED, Reason.CONTEXT_TOO_LONG]))
    def refuse_move(self, data: st.DataObject, reason: Reason) -> None:
        """Whatever the reason, the source goes on."""
        move = data.draw(st.sampled_from(list(self.moves.values())))
        self.end_move(move)
        self.send(failed(move, reason))
        assert move.request_id in self.live

    @precondition(lambda self: self.over)
    @rule(data=st.data(), is_commit=st.booleans(), later=st.integers(0, 1))
    def say_of_a_past_move(self, data: st.DataObject, is_commit: bool, later: int) -> None:
        """News of a move that is over changes nothing."""
        move = data.draw(st.sampled_from(self.over))
        stale = replace(move, move=move.move - later)
        before, was = self.state.statistics(), self.state.explain(move.request_id)
        self.send(committed(stale) if is_commit else failed(stale, Reason.OVERLOADED))
        assert not self.trace[-1]
        assert self.state.statistics() == before
        assert self.state.explain(move.request_id) == was

    @precondition(lambda self: self.live)
    @rule(data=st.data(), tokens_read=st.integers(0, 60))
    def read(self, data: st.DataObject, tokens_read: int) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.live)))
        self.clocks[request_id].acknowledge(tokens_read, now=self.now)
        self.send(ReadingReported(request_id=request_id, tokens_read=tokens_read))

    @precondition(lambda self: self.has(Leg.DECODE, Leg.WHOLE))
    @rule(tokens=st.integers(1, 8), dt=st.floats(0.05, 2), free=st.integers(0, 64))
    def decode_on(self, tokens: int, dt: float, free: int) -> None:
        self.decode(tokens, dt, free)

    def decode(self, tokens: int, dt: float, free: int) -> None:
        """Each decode worker makes a step, and then another."""
        for _ in range(2):
            for worker_id, about in sorted(self.workers.items()):
                made = tuple(self.make(worker_id, tokens))
                load = WorkerLoad(running=len(made), waiting=0, kv_blocks_free=free)
                step = StepObserved(
                    worker_id=worker_id, incarnation=about.incarnation, load=load, made=made
                )
                self.send(step)
            self.wait_until(self.now + dt)

    def make(self, worker_id: WorkerId, tokens: int) -> Iterator[TokensMade]:
        for leg in self.legs.values():
            if leg.worker_id == worker_id and leg.leg is not Leg.PREFILL:
                self.drop_source(leg)
                self.delivered[leg.request_id] += tokens
                yield TokensMade(request_id=leg.request_id, attempt=leg.attempt, tokens=tokens)

    @invariant()
    def moves_have_their_places(self) -> None:
        for request_id, move in self.moves.items():
            leg = self.legs[request_id, move.attempt]
            assert leg.worker_id == move.source, "the source owns it until the commit"
            assert {move.source, move.target} <= set(self.workers)
        for worker_id, about in self.workers.items():
            owned = sum(leg.worker_id == worker_id for leg in self.legs.values())
            coming = sum(move.target == worker_id for move in self.moves.values())
            leaving = sum(move.source == worker_id for move in self.moves.values())
            if worker_id.startswith("d"):
                assert owned + coming <= about.requests_max, "a seat was given twice"
            assert coming + leaving <= self.config.migration.moves_per_worker_max


def committed(move: MigrateLeg) -> MigrationCommitted:
    return MigrationCommitted(
        request_id=move.request_id,
        attempt=move.attempt,
        move=move.move,
        source=move.source,
        target=move.target,
    )


def failed(move: MigrateLeg, reason: Reason) -> MigrationFailed:
    return MigrationFailed(
        request_id=move.request_id,
        attempt=move.attempt,
        move=move.move,
        source=move.source,
        target=move.target,
        reason=reason,
        message="no",
    )


TestMovingWorld = MovingWorld.TestCase
TestMovingWorld.settings = LAWS
