"""Moves: who owns the leg when, and what each side is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from restless import RESTLESS
from toy_session import FakeLink, settle, toy_call, toy_table

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import MigrationCommitted, MigrationFailed, TimerFired, WorkerLost
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move, move
from readahead.core.promise import Promise, PromisedStage, Verdict
from readahead.core.request import RequestId
from readahead.core.router_state import RouterState
from readahead.core.slo import NamedPromise
from readahead.router.driver import Driver
from readahead.router.links import UnansweredError
from readahead.router.moves import MoveStage
from readahead.router.outbox import LegKey, leg_number
from readahead.router.promises import SessionPromise
from readahead.router.relay import Relay
from readahead.router.session import LiveSession
from readahead.router.sessions import Finish
from readahead.v1 import sampling_pb2
from readahead.v1 import worker_service_pb2 as pb

R = RequestId("r")
HOME, AWAY, BACK = 1, leg_number(1, move=1), leg_number(1, move=2)


class Obedient:
    """Moves everybody to the worker that the test names."""

    target = ""

    def choose(self, decoders: Sequence[Decoder], *, now: float) -> list[Move]:
        del now
        by_id = {str(each.worker_id): each for each in decoders}
        return [
            move(request, source, by_id[self.target], "the test says so")
            for source in decoders
            for request in list(source.readers)
            if request.is_movable and source.worker_id != self.target in by_id
        ]


@dataclass(slots=True)
class Scene:
    """A request on d0 that has said 7 and 8, and can move to d1."""

    driver: Driver
    relay: Relay
    links: dict[str, FakeLink]
    session: LiveSession
    trigger: Obedient
    now: list[float]
    stages: list[MoveStage]

    async def send_to(self, target: str) -> None:
        self.trigger.target = target
        self.now[0] += 1
        self.driver.handle(TimerFired())
        self.trigger.target = ""
        await settle()

    def say(self, worker: str, number: int, *tokens: int, end: pb.LegEnd | None = None) -> None:
        delta = pb.LegDelta(
            request_id=R, attempt=number, token_ids=tokens, text=" x" * len(tokens), end=end
        )
        news = pb.StepsResponse(deltas=[delta], load=pb.WorkerLoad(running=1, kv_blocks_free=900))
        self.relay.on_step(self.links[worker].as_link(), news)

    @property
    def answers(self) -> list[MigrationCommitted | MigrationFailed]:
        events = [event for _, event in self.driver.ring]
        return [e for e in events if isinstance(e, MigrationCommitted | MigrationFailed)]

    @property
    def failure(self) -> Reason:
        (answer,) = self.answers
        assert isinstance(answer, MigrationFailed)
        return answer.reason

    @property
    def said(self) -> list[int]:
        return self.session._token_ids


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    now = [0.0]
    state, trigger = RouterState(RESTLESS), Obedient()
    state._migrations._policy = MigrationPolicy(trigger)
    async with Driver(state, now=lambda: now[0]) as driver:
        links = {"d0": FakeLink("d0")}
        driver.join(links["d0"].as_link())
        session = await toy_table(driver, now=lambda: now[0]).open(toy_call())
        await settle()
        links["d1"] = FakeLink("d1")
        driver.join(links["d1"].as_link())
        stages: list[MoveStage] = []
        driver.moves.on_stage = lambda stage, _: stages.append(stage)
        made = Scene(driver, Relay(driver), links, session, trigger, now, stages)
        made.say("d0", HOME, 7, 8)
        yield made
        state.check()
        assert not driver.moves
        assert not driver.broken.is_set()
        if session.end is None:
            session.cancel()
        await settle()


async def test_the_target_owns_the_leg_from_its_first_news_on() -> None:
    """It is told of all output so far; the source is relayed until it has stopped, then let go."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        assert (target.reserved, source.stops) == ([LegKey(R, AWAY)], [LegKey(R, HOME)])
        it.say("d0", HOME, 9)
        source.let_stop([7, 8, 9, 10])
        await settle()
        assert not target.submitted, "a token of the source is still on its way"
        it.say("d0", HOME, 10)
        await settle()
        (leg,) = target.submitted
        assert (leg.attempt, leg.leg, leg.handover) == (AWAY, pb.LEG_DECODE, b"kv")
        assert list(leg.output_token_ids) == [7, 8, 9, 10]
        assert leg.sampling.max_tokens == 8, "of the whole output"
        assert not source.cancelled
        it.say("d1", AWAY, 11)
        assert source.cancelled == [LegKey(R, HOME)]
        it.say("d0", HOME, 66)
        it.say("d1", AWAY, 12, end=pb.LegEnd(reason=sampling_pb2.FINISH_REASON_STOP))
        assert it.said == [7, 8, 9, 10, 11, 12]
        assert isinstance(it.session.end, Finish)
        assert it.session.end.output_tokens == 6
        assert it.stages == list(MoveStage)
        assert [type(each) for each in it.answers] == [MigrationCommitted]


async def test_a_leg_may_come_back() -> None:
    """With another number, so that late cancels and news of its first stay are not for it."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.say("d1", AWAY, 9)
        await it.send_to("d0")
        assert target.stops == [LegKey(R, AWAY)]
        target.let_stop([7, 8, 9])
        await settle()
        assert source.submitted[-1].attempt == BACK
        it.say("d0", HOME, 66)
        it.say("d0", BACK, 10)
        assert it.said == [7, 8, 9, 10]
        assert it.session.moves == 2
        it.session.cancel()
        assert source.cancelled[-1] == LegKey(R, BACK)


async def test_what_was_promised_goes_along_and_a_verdict_alone_moves_nobody() -> None:
    """The target is told when the next token is due; judging a leg is not having it."""
    promise = Promise(first_token_s=0.5, stages=(PromisedStage(token_s=2.0),))
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        it.session.reader.promise = SessionPromise(
            NamedPromise(name="p", promise=promise), arrived_at=0.0
        )
        it.session.verdict = Verdict.BEST_EFFORT
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        (leg,) = target.submitted
        due_at = it.now[0] - leg.age_ns / 1e9 + leg.promise.first_token_s
        assert due_at == pytest.approx(0.5)
        assert leg.verdict == pb.VERDICT_BEST_EFFORT
        judged = pb.LegDelta(request_id=R, attempt=AWAY, verdict=pb.VERDICT_ACCEPTED)
        it.relay.on_step(target.as_link(), pb.StepsResponse(deltas=[judged]))
        assert it.session.worker_id == "d0"
        assert not target.cancelled
        it.say("d1", AWAY, 9)
        assert it.session.worker_id == "d1"


async def test_the_first_news_may_overtake_the_answer() -> None:
    """The target speaks on another stream than the one that answers."""
    async with scene() as it:
        await it.send_to("d1")
        target = it.links["d1"]
        target.refusal = UnansweredError("submit: DEADLINE_EXCEEDED")
        it.links["d0"].let_stop([7, 8])
        while not target.submitted:  # noqa: ASYNC110 - one pass of the loop, and no more
            await asyncio.sleep(0)
        it.say("d1", AWAY, 9)
        await settle()
        assert it.said == [7, 8, 9]
        assert [type(each) for each in it.answers] == [MigrationCommitted]
        assert not it.links["d0"].resumed


@pytest.mark.parametrize(
    "refusal",
    [ReadaheadError(Reason.OVERLOADED, "full"), UnansweredError("submit: DEADLINE_EXCEEDED")],
    ids=["refused", "unanswered"],
)
async def test_the_source_goes_on_if_the_target_does_not_take_the_leg(refusal: Exception) -> None:
    """What the target may have of it is cancelled."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        target.refusal = refusal
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        assert source.resumed == [(LegKey(R, HOME), 1)]
        assert target.cancelled == [LegKey(R, AWAY)]
        assert it.failure in (Reason.OVERLOADED, Reason.WORKER_LOST)
        it.say("d0", HOME, 9)
        assert it.said == [7, 8, 9]
        assert not source.cancelled


async def test_a_source_that_has_gone_on_keeps_the_leg() -> None:
    """However that came: a token that the target was not told of would be said twice."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.say("d0", HOME, 9)
        it.say("d1", AWAY, 9)
        assert it.said == [7, 8, 9]
        assert it.failure is Reason.STREAM_BROKEN
        assert set(target.cancelled) == {LegKey(R, AWAY)}
        it.say("d0", HOME, 10)
        assert it.said == [7, 8, 9, 10]


async def test_a_target_that_fails_before_its_first_token_gives_the_leg_back() -> None:
    """Its failure is not the request's."""
    async with scene() as it:
        source = it.links["d0"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        bad = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_ERROR, error_reason="ENGINE_FAILED")
        it.say("d1", AWAY, end=bad)
        assert it.failure is Reason.ENGINE_FAILED
        assert source.resumed == [(LegKey(R, HOME), 1)]
        assert it.session.end is None


@pytest.mark.parametrize("has_leg", [False, True], ids=["too early", "in time"])
@pytest.mark.parametrize("loss", ["link", "leg"])
async def test_without_its_source_the_target_goes_on_if_it_has_the_leg(
    loss: str, has_leg: bool
) -> None:
    """It knows all output so far; its KV cache can be computed. Else the stream is broken."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        if has_leg:
            source.let_stop([7, 8])
            await settle()
        if loss == "link":
            it.driver.leave(source.as_link(), "killed")
        else:
            bad = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_ERROR, error_reason="ENGINE_FAILED")
            it.say("d0", HOME, end=bad)
        if not has_leg:
            assert isinstance(it.session.end, ReadaheadError)
            assert it.session.end.reason is Reason.STREAM_BROKEN
            assert target.cancelled == [LegKey(R, AWAY)]
            return
        it.say("d1", AWAY, 9)
        assert it.said == [7, 8, 9]
        assert it.session.end is None


async def test_a_lost_source_that_had_gone_on_is_a_lost_worker() -> None:
    """The target would say again what the reader has."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.say("d0", HOME, 9)
        it.driver.leave(source.as_link(), "killed")
        assert isinstance(it.session.end, ReadaheadError)
        assert it.session.end.reason is Reason.STREAM_BROKEN
        assert target.cancelled == [LegKey(R, AWAY)]


async def test_a_source_lost_while_the_leg_is_submitted_is_a_lost_worker() -> None:
    """Nobody knows whether the target has it."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]

        def lose(reached: MoveStage, _: object) -> None:
            if reached is MoveStage.CAUGHT_UP:
                it.driver.leave(source.as_link(), "killed")

        it.driver.moves.on_stage = lose
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        assert isinstance(it.session.end, ReadaheadError)
        assert it.session.end.reason is Reason.STREAM_BROKEN
        assert target.cancelled == [LegKey(R, AWAY)]


async def test_a_lost_target_leaves_the_leg_where_it_is() -> None:
    """At any stage before its first news."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.driver.leave(target.as_link(), "killed")
        assert source.resumed == [(LegKey(R, HOME), 1)]
        it.say("d0", HOME, 9)
        assert it.said == [7, 8, 9]
        assert any(isinstance(event, WorkerLost) for _, event in it.driver.ring)


@pytest.mark.parametrize("stage", list(MoveStage))
async def test_a_cancel_at_any_stage_tells_both_sides(stage: MoveStage) -> None:
    """Both free what they have, whoever owns it."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]

        def leave(reached: MoveStage, _: object) -> None:
            if reached is stage:
                it.session.cancel()

        it.driver.moves.on_stage = leave
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.say("d1", AWAY, 9)
        await settle()
        assert it.session.end is not None
        assert set(source.cancelled) == {LegKey(R, HOME)}
        assert set(target.cancelled) == {LegKey(R, AWAY)}


async def test_workers_whose_kv_does_not_move_are_not_asked() -> None:
    """The core hears why."""
    async with scene() as it:
        it.links["d1"].moves_legs = False
        await it.send_to("d1")
        assert it.failure is Reason.UNSUPPORTED
        assert not it.links["d1"].reserved
        assert not it.links["d0"].stops


async def test_a_reader_tells_the_new_worker_of_what_that_one_made() -> None:
    """His place in the whole output would be beyond the leg's."""
    async with scene() as it:
        source, target = it.links["d0"], it.links["d1"]
        await it.send_to("d1")
        source.let_stop([7, 8])
        await settle()
        it.say("d1", AWAY, 9)
        for read, told in ((2, None), (3, 1)):
            it.session.reader.tokens_read = read
            it.driver.tell_worker_of_reader(R)
            key, note = target.notes[-1]
            assert (key, note.tokens_read) == (LegKey(R, AWAY), told)
