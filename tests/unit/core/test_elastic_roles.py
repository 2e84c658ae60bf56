"""Elastic roles, one behaviour at a time. The laws are in tests/property/test_roles_laws.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.config import CoreConfig, MigrationConfig, PlacementConfig
from readahead.core.errors import Reason
from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.messages import (
    Command,
    LegFinished,
    LegRefused,
    PrefillFinished,
    RequestArrived,
    StepObserved,
    SubmitLeg,
    TimerFired,
    TokensMade,
    WorkerJoined,
)
from readahead.core.placement.prompt_times import PromptTimes
from readahead.core.request import FinishReason, Incarnation, Leg, RequestId, WorkerId
from readahead.core.router_state import LOOK_S, RouterState

P1, D1, D2 = WorkerId("p1"), WorkerId("d1"), WorkerId("d2")
TOKEN_S = 1e-3
MODEL = LatencyModel(name="even", planes=(LatencyPlane(token_s=TOKEN_S),))
"""A prompt of 500 tokens takes half a second."""
LINK = MigrationConfig(kv_token_bytes=1, link_bytes_per_s=1e9, link_latency_s=0.01, downtime_s=0.0)
"""A handover takes ten milliseconds."""


def router(*names: WorkerId, keep_queue_s: float = 0.0, roles: str = "elastic") -> RouterState:
    placement = PlacementConfig(roles=roles, keep_queue_s=keep_queue_s)
    state = RouterState(CoreConfig(placement=placement, migration=LINK), latency=MODEL)
    for name in names:
        state.handle(WorkerJoined(description=about(name)), now=0.0)
    return state


def about(name: WorkerId, incarnation: str = "1") -> WorkerDescription:
    return WorkerDescription(
        worker_id=name,
        incarnation=Incarnation(incarnation),
        role=Role.PREFILL if name.startswith("p") else Role.DECODE,
        engine="emulated",
        model="m",
        context_tokens_max=4096,
        block_tokens=16,
        kv_blocks=640,
        requests_max=8,
        prefill_credits=2,
        handover_lease_s=30.0,
    )


def arrive(
    state: RouterState, name: str, *, now: float = 0.0, tokens: int = 500
) -> list[tuple[Leg, WorkerId]]:
    """Where it is sent at once."""
    event = RequestArrived(
        request_id=RequestId(name), prompt_tokens=tokens, output_tokens_max=50, pace_tok_s=5.0
    )
    return sent(state.handle(event, now=now))


def sent(commands: list[Command]) -> list[tuple[Leg, WorkerId]]:
    return [(each.leg, each.worker_id) for each in commands if isinstance(each, SubmitLeg)]


def step(
    state: RouterState, worker_id: WorkerId, name: str, *, now: float, tokens: int = 1
) -> None:
    made = TokensMade(request_id=RequestId(name), attempt=1, tokens=tokens)
    load = WorkerLoad(running=1, waiting=0, kv_blocks_free=600)
    state.handle(
        StepObserved(worker_id=worker_id, incarnation=Incarnation("1"), load=load, made=(made,)),
        now=now,
    )


def reading(state: RouterState, worker_id: WorkerId, *, tokens: int) -> None:
    """Gives the only decode worker a reader, who gets so many tokens at once and no more."""
    assert arrive(state, "reader", tokens=40) == [(Leg.WHOLE, worker_id)]
    step(state, worker_id, "reader", now=0.04, tokens=tokens)


def test_prompts_go_where_the_first_token_is_soonest() -> None:
    """With nobody reading, a decode worker is as good as a prefill worker; queues stay even."""
    state = router(P1, D1, D2)
    legs = [arrive(state, f"r{number}")[0] for number in range(4)]
    assert {worker_id for _, worker_id in legs[:3]} == {P1, D1, D2}
    assert (Leg.PREFILL, P1) in legs


def test_a_reader_with_text_lets_the_prompt_in() -> None:
    """He has 20 s of text; a chunk takes half a second."""
    state = router(P1, D1)
    reading(state, D1, tokens=100)
    assert arrive(state, "first", now=0.5) == [(Leg.WHOLE, D1)]


def sent_to(state: RouterState, name: str) -> WorkerId | None:
    explanation = state.explain(RequestId(name))
    assert explanation is not None
    return explanation.decisions[-1].worker_id


def test_a_reader_without_text_keeps_prompts_away() -> None:
    """He has 0.15 s of text left and a chunk takes 0.5 s: the difference counts."""
    state = router(P1, D1)
    reading(state, D1, tokens=1)
    assert arrive(state, "first", now=0.5) == [(Leg.PREFILL, P1)]
    costs = state.explain(RequestId("first")).decisions[-1].costs  # type: ignore[union-attr]
    assert costs[D1] == pytest.approx(costs[P1] + 0.34, abs=0.01)


def test_a_prompt_that_waits_is_looked_at_again() -> None:
    """All credits are used up, nothing happens, and what is overdue is expected to take as long
    again: in the end it goes to the other worker, though that has far more to do."""
    state = router(P1, D1)
    assert arrive(state, "long", tokens=4000) == [(Leg.WHOLE, D1)]
    assert arrive(state, "r0") == arrive(state, "r1") == [(Leg.PREFILL, P1)]
    assert arrive(state, "r2") == []
    now = 0.0
    while sent_to(state, "r2") != D1:
        due = state.next_deadline()
        assert due is not None
        assert due <= now + LOOK_S + 1e-9
        now = due
        state.handle(TimerFired(), now=now)
    assert 2 < now < 3


def test_a_pool_that_refuses_is_not_waited_for() -> None:
    """The next prompt goes to the decode worker at once, even though he is short of text."""
    state = router(P1, D1)
    reading(state, D1, tokens=1)
    assert arrive(state, "r", now=0.5) == [(Leg.PREFILL, P1)]
    refused = LegRefused(
        request_id=RequestId("r"),
        attempt=1,
        leg=Leg.PREFILL,
        worker_id=P1,
        reason=Reason.OVERLOADED,
        message="full",
    )
    assert sent(state.handle(refused, now=0.6)) == [(Leg.WHOLE, D1)]


def test_a_prefill_worker_keeps_answers_while_its_queue_is_short() -> None:
    """With 0.15 s the first prompt stays and the second, behind half a second, is handed over.
    One that it goes on with takes none of its credits."""
    state = router(P1, D1, keep_queue_s=0.15)
    reading(state, D1, tokens=1)
    assert arrive(state, "first", now=3.0) == [(Leg.WHOLE, P1)]
    assert arrive(state, "second", now=3.0) == [(Leg.PREFILL, P1)]
    step(state, P1, "first", now=3.5, tokens=100)
    assert arrive(state, "third", now=3.5) == [(Leg.PREFILL, P1)]
    state.check()


def test_a_prefill_worker_keeps_answers_while_no_decode_worker_has_room() -> None:
    """All seats are taken there: what is handed over would only wait."""
    state = router(P1, keep_queue_s=0.15)
    state.handle(WorkerJoined(description=replace(about(D1), requests_max=1)), now=0.0)
    reading(state, D1, tokens=100)
    legs = [arrive(state, f"r{number}", now=0.5) for number in range(2)]
    assert legs == [[(Leg.WHOLE, P1)]] * 2


def test_a_decode_worker_short_of_memory_takes_no_prompt() -> None:
    """Three blocks of 16 tokens are free, and the prompt has 500."""
    state = router(P1, D1)
    reading(state, D1, tokens=100)
    load = WorkerLoad(running=1, waiting=0, kv_blocks_free=3)
    state.handle(StepObserved(worker_id=D1, incarnation=Incarnation("1"), load=load), now=0.4)
    assert arrive(state, "first", now=0.5) == [(Leg.PREFILL, P1)]


def test_static_pools_do_neither() -> None:
    """The default: a prompt goes through both pools, whatever the queues."""
    assert PlacementConfig().roles == "static"
    state = router(P1, D1, keep_queue_s=0.15, roles="static")
    assert arrive(state, "first") == [(Leg.PREFILL, P1)]
    assert arrive(state, "second") == [(Leg.PREFILL, P1)]
    assert arrive(state, "third") == []


def test_only_known_roles_are_taken() -> None:
    """A word that means nothing is refused when it is read."""
    with pytest.raises(ValueError, match=r"placement\.roles must be one of static, elastic"):
        PlacementConfig(roles="bendy")


# Times


def times() -> PromptTimes:
    return PromptTimes(LINK, latency=MODEL)


def given(known: PromptTimes, name: str, *, tokens: int, now: float) -> None:
    known.given(P1, RequestId(name), tokens=tokens, share=1.0, now=now)


def test_a_queue_is_worked_off() -> None:
    """It shrinks as time passes; one that is overdue is expected to take as long again."""
    known = times()
    given(known, "a", tokens=1000, now=0.0)
    given(known, "b", tokens=500, now=0.0)
    assert known.queue_s(P1, now=0.0) == pytest.approx(1.5)
    assert known.queue_s(P1, now=1.0) == pytest.approx(0.5)
    known.computed(P1, RequestId("a"), now=1.0)
    assert known.queue_s(P1, now=1.0) == pytest.approx(0.5)
    assert known.queue_s(P1, now=3.5) == pytest.approx(2.0)
    known.computed(P1, RequestId("b"), now=3.5)
    assert known.queue_s(P1, now=9.0) == 0.0


def test_a_slow_engine_is_believed() -> None:
    """Prompts take thrice as long as the model says, and half of them come in pairs."""
    known, now = times(), 0.0
    for number in range(60):
        given(known, f"a{number}", tokens=100, now=now)
        given(known, f"b{number}", tokens=200, now=now)
        now += 0.9
        known.computed(P1, RequestId(f"a{number}"), now=now)
        known.computed(P1, RequestId(f"b{number}"), now=now)
        now += 5
    assert known.length_s(1000) == pytest.approx(3.0, rel=0.1)


def test_who_is_gone_no_longer_queues() -> None:
    """Cancelled prompts, and all of a worker that is lost."""
    known = times()
    given(known, "a", tokens=1000, now=0.0)
    given(known, "b", tokens=500, now=0.0)
    known.keep(P1, [RequestId("b")])
    assert known.queue_s(P1, now=0.0) == pytest.approx(0.5)
    known.forget(P1)
    assert known.queue_s(P1, now=0.0) == 0.0


def test_a_lost_worker_is_not_waited_for_when_it_is_back() -> None:
    """A new start has none of the old one's prompts."""
    state = router(P1, D1)
    reading(state, D1, tokens=1)
    assert arrive(state, "r", now=0.5) == [(Leg.PREFILL, P1)]
    again = state.handle(WorkerJoined(description=about(P1, "2")), now=0.6)
    assert sent(again) == [(Leg.PREFILL, P1)]
    explanation = state.explain(RequestId("r"))
    assert explanation is not None
    assert explanation.decisions[-1].costs[P1] == pytest.approx(0.51, abs=0.001)


def test_what_a_handover_takes_is_learned() -> None:
    """Four seconds from the end of the prompt to the first token, again and again."""
    state, now = router(P1, D1), 10.0
    reading(state, D1, tokens=1)
    for number in range(30):
        name = RequestId(f"r{number}")
        assert arrive(state, name, now=now) == [(Leg.PREFILL, P1)]
        now += 0.5
        state.handle(PrefillFinished(request_id=name, attempt=1, worker_id=P1), now=now)
        now += 4
        step(state, D1, name, now=now)
        length = FinishReason.LENGTH
        state.handle(
            LegFinished(request_id=name, attempt=1, worker_id=D1, finish_reason=length), now=now
        )
    arrive(state, "last", now=now)
    costs = state.explain(RequestId("last")).decisions[-1].costs  # type: ignore[union-attr]
    assert costs[P1] > 4
