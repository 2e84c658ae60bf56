"""A running request on the move, one behaviour at a time. The laws are in tests/property."""

from __future__ import annotations

import pytest

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.config import CoreConfig, MigrationConfig
from readahead.core.errors import Reason
from readahead.core.messages import (
    AbortMigration,
    CancelLeg,
    Command,
    EndRequest,
    Event,
    LegFailed,
    LegFinished,
    MigrateLeg,
    MigrationCommitted,
    MigrationFailed,
    RequestArrived,
    RequestCancelled,
    StepObserved,
    TimerFired,
    TokensMade,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.request import FinishReason, Incarnation, RequestId, Stage, WorkerId
from readahead.core.router_state import RouterState

R1 = RequestId("r1")
D1, D2 = WorkerId("d1"), WorkerId("d2")
FIRST = Incarnation("1")
MOVE = MigrateLeg(request_id=R1, attempt=1, move=1, source=D1, target=D2)
ABORT = AbortMigration(request_id=R1, attempt=1, move=1, source=D1, target=D2)
COMMITTED = MigrationCommitted(request_id=R1, attempt=1, move=1, source=D1, target=D2)
REFUSED = MigrationFailed(
    request_id=R1,
    attempt=1,
    move=1,
    source=D1,
    target=D2,
    reason=Reason.OVERLOADED,
    message="full",
)
CANCEL = RequestCancelled(request_id=R1)


class Cluster:
    """A core whose clock goes on by itself: each event is a tenth of a second later."""

    def __init__(self, trigger: str = "need", **changes: float) -> None:
        migration = MigrationConfig(trigger=trigger, **changes)  # type: ignore[arg-type]
        self.state = RouterState(CoreConfig(migration=migration))
        self.now = 0.0

    def tell(self, event: Event) -> list[Command]:
        self.now += 0.1
        commands = self.state.handle(event, now=self.now)
        self.state.check()
        return commands

    def join(self, worker_id: WorkerId) -> None:
        self.tell(
            WorkerJoined(
                description=WorkerDescription(
                    worker_id=worker_id,
                    incarnation=FIRST,
                    role=Role.DECODE,
                    engine="emulated",
                    model="m",
                    context_tokens_max=4096,
                    block_tokens=16,
                    kv_blocks=640,
                    requests_max=8,
                    prefill_credits=2,
                    handover_lease_s=30.0,
                )
            )
        )

    def step(self, worker_id: WorkerId, tokens: int = 1) -> list[Command]:
        made = TokensMade(request_id=R1, attempt=1, tokens=tokens)
        load = WorkerLoad(running=1, waiting=0, kv_blocks_free=600)
        step = StepObserved(worker_id=worker_id, incarnation=FIRST, load=load, made=(made,))
        return self.tell(step)

    def look(self) -> list[Command]:
        due = self.state.next_deadline()
        assert due is not None
        self.now = max(self.now, due)
        return self.state.handle(TimerFired(), now=self.now)

    def lose(self, worker_id: WorkerId) -> list[Command]:
        return self.tell(WorkerLost(worker_id=worker_id, incarnation=FIRST, cause="killed"))

    def finish(self, worker_id: WorkerId) -> list[Command]:
        event = LegFinished(
            request_id=R1, attempt=1, worker_id=worker_id, finish_reason=FinishReason.STOP
        )
        return self.tell(event)


def draining(trigger: str = "load") -> Cluster:
    """One request decodes on d1, which drains; d2 is free."""
    cluster = Cluster(trigger)
    cluster.join(D1)
    cluster.tell(
        RequestArrived(request_id=R1, prompt_tokens=10, output_tokens_max=500, pace_tok_s=5.0)
    )
    cluster.step(D1, tokens=20)
    cluster.join(D2)
    cluster.tell(WorkerDrained(worker_id=D1, incarnation=FIRST))
    return cluster


def moving() -> Cluster:
    """The same, on the move to d2."""
    cluster = draining()
    assert cluster.look() == [MOVE]
    return cluster


def stage_of(cluster: Cluster) -> Stage:
    explanation = cluster.state.explain(R1)
    assert explanation is not None
    return explanation.stage


def reason_of(commands: list[Command]) -> Reason | None:
    (end,) = [each for each in commands if isinstance(each, EndRequest)]
    assert commands[-1] is end
    return end.reason


def test_none_looks_at_nothing() -> None:
    """Not even a timer runs."""
    assert draining("none").state.next_deadline() is None


@pytest.mark.parametrize("trigger", ["load", "cover", "need"])
def test_a_move_commits(trigger: str) -> None:
    """The target owns the leg from then on: news of the source is stale, its loss is nothing."""
    cluster = draining(trigger)
    assert cluster.look() == [MOVE]
    assert stage_of(cluster) is Stage.DECODING
    assert cluster.tell(COMMITTED) == []
    assert cluster.finish(D1) == []
    assert cluster.lose(D1) == []
    cluster.step(D2)
    assert reason_of(cluster.finish(D2)) is None


def test_tokens_come_from_the_source_until_the_commit() -> None:
    """Nothing is lost of what it makes while its KV is copied."""
    cluster = moving()
    cluster.step(D1, tokens=3)
    cluster.tell(COMMITTED)
    cluster.step(D2, tokens=4)
    explanation = cluster.state.explain(R1)
    assert explanation is not None
    assert explanation.tokens_delivered == 27
    assert [each.kind for each in explanation.decisions] == [
        "admit",
        "decode",
        "migrate",
        "migrate",
    ]


def test_a_refused_move_leaves_the_source_to_go_on() -> None:
    """And the request alone for its cooldown."""
    cluster = moving()
    began = cluster.now
    assert cluster.tell(REFUSED) == []
    assert stage_of(cluster) is Stage.DECODING
    while not (commands := cluster.look()):
        assert cluster.now < began + 30
    assert cluster.now >= began + MigrationConfig().cooldown_s
    assert [(type(each), getattr(each, "move", 0)) for each in commands] == [(MigrateLeg, 2)]
    assert cluster.tell(COMMITTED) == [], "of the first move"
    assert cluster.finish(D2) == []
    assert len(cluster.finish(D1)) == 2, "the second move is called off, the request ends"


def test_the_end_of_the_leg_calls_its_move_off() -> None:
    """The target frees what it took, before the caller is told."""
    cluster = moving()
    assert cluster.finish(D1)[0] == ABORT
    assert cluster.tell(COMMITTED) == []


def test_a_cancel_frees_both() -> None:
    """At any moment before the commit; after it there is one place again."""
    cancel = CancelLeg(request_id=R1, attempt=1, worker_id=D1)
    commands = moving().tell(CANCEL)
    assert commands[:-1] == [ABORT, cancel]
    assert reason_of(commands) is Reason.CANCELLED
    cluster = moving()
    cluster.tell(COMMITTED)
    assert cluster.tell(CANCEL)[:-1] == [CancelLeg(request_id=R1, attempt=1, worker_id=D2)]


def test_a_source_lost_before_the_commit_is_a_lost_worker() -> None:
    """Text was delivered, so that the stream breaks; the target frees what it took."""
    commands = moving().lose(D1)
    assert commands[0] == ABORT
    assert reason_of(commands) is Reason.STREAM_BROKEN


def test_a_target_lost_before_the_commit_costs_nothing() -> None:
    """The source goes on; had it given the leg away already, it says so."""
    cluster = moving()
    assert cluster.lose(D2) == [ABORT]
    cluster.step(D1)
    assert stage_of(cluster) is Stage.DECODING
    gone = LegFailed(
        request_id=R1,
        attempt=1,
        worker_id=D1,
        reason=Reason.WORKER_LOST,
        message="it has gone to d2",
    )
    assert reason_of(cluster.tell(gone)) is Reason.STREAM_BROKEN


def test_a_target_lost_after_the_commit_is_a_lost_worker() -> None:
    """It owned the leg."""
    cluster = moving()
    cluster.tell(COMMITTED)
    assert reason_of(cluster.lose(D2)) is Reason.STREAM_BROKEN


def test_a_move_keeps_its_seat_at_the_target() -> None:
    """What arrives meanwhile counts it."""
    cluster = moving()
    for n in range(8):
        cluster.tell(
            RequestArrived(
                request_id=RequestId(f"other{n}"),
                prompt_tokens=10,
                output_tokens_max=500,
                pace_tok_s=5.0,
            )
        )
    waiting = cluster.state.statistics().by_stage[Stage.QUEUED]
    assert waiting == 1, "eight seats, one of them kept"


def test_need_moves_a_reader_whose_worker_is_too_slow() -> None:
    """Driven by events alone: d1 makes a token a second, d2 made them quickly."""
    cluster = Cluster("need")
    cluster.join(D2)
    fast = RequestId("fast")
    cluster.tell(
        RequestArrived(request_id=fast, prompt_tokens=10, output_tokens_max=50, pace_tok_s=5.0)
    )
    load = WorkerLoad(running=1, waiting=0, kv_blocks_free=600)
    for _ in range(3):
        made = TokensMade(request_id=fast, attempt=1, tokens=5)
        cluster.tell(StepObserved(worker_id=D2, incarnation=FIRST, load=load, made=(made,)))
    cluster.tell(RequestCancelled(request_id=fast))
    cluster.tell(WorkerDrained(worker_id=D2, incarnation=FIRST))
    cluster.join(D1)
    cluster.tell(
        RequestArrived(request_id=R1, prompt_tokens=10, output_tokens_max=500, pace_tok_s=5.0)
    )
    cluster.join(D2)  # the same incarnation: it takes legs again
    commands: list[Command] = []
    for _ in range(4):
        commands += cluster.step(D1)
        cluster.now += 0.9
        commands += cluster.look()
    assert commands == [MOVE]
