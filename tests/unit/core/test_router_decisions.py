"""The router's core, one behaviour at a time. The laws are in tests/property."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.errors import Reason
from readahead.core.messages import (
    CancelLeg,
    Command,
    EndRequest,
    LegRefused,
    PrefillFinished,
    ReadingReported,
    ReleaseHandover,
    RenewHandover,
    RequestArrived,
    RequestCancelled,
    StepObserved,
    SubmitLeg,
    TimerFired,
    TokensMade,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.request import Incarnation, Leg, RequestId, Stage, WorkerId
from readahead.core.router_state import RouterState

R1, R2 = RequestId("r1"), RequestId("r2")
P1, D1, D2 = WorkerId("p1"), WorkerId("d1"), WorkerId("d2")
FIRST = Incarnation("1")
LONG, SHORT = 500, 3


def joined(worker_id: WorkerId, **changes: object) -> WorkerJoined:
    role = Role.PREFILL if worker_id.startswith("p") else Role.DECODE
    description = WorkerDescription(
        worker_id=worker_id,
        incarnation=FIRST,
        role=role,
        engine="emulated",
        model="m",
        context_tokens_max=4096,
        block_tokens=16,
        kv_blocks=640,
        requests_max=8,
        prefill_credits=2,
        handover_lease_s=30.0,
    )
    return WorkerJoined(description=replace(description, **changes))  # type: ignore[arg-type]


def router(*workers: WorkerJoined, **admission: int) -> RouterState:
    state = RouterState(CoreConfig(admission=AdmissionConfig(**admission)))
    for each in workers:
        state.handle(each, now=0.0)
    return state


def arrived(request_id: RequestId, *, prompt_tokens: int = LONG) -> RequestArrived:
    return RequestArrived(
        request_id=request_id, prompt_tokens=prompt_tokens, output_tokens_max=50, pace_tok_s=5.0
    )


def submit(request_id: RequestId, leg: Leg, worker_id: WorkerId, attempt: int = 1) -> SubmitLeg:
    return SubmitLeg(request_id=request_id, attempt=attempt, leg=leg, worker_id=worker_id)


def step(tokens: int) -> StepObserved:
    made = TokensMade(request_id=R1, attempt=1, tokens=tokens)
    load = WorkerLoad(running=1, waiting=0, kv_blocks_free=1)
    return StepObserved(worker_id=D1, incarnation=FIRST, load=load, made=(made,))


def prefilled(state: RouterState, *, now: float = 1.0) -> list[Command]:
    return state.handle(PrefillFinished(request_id=R1, attempt=1, worker_id=P1), now=now)


def test_a_long_prompt_goes_through_both_pools() -> None:
    """Prefill first; the decode worker is chosen at the handover."""
    state = router(joined(P1), joined(D1))
    assert state.handle(arrived(R1), now=0.0) == [submit(R1, Leg.PREFILL, P1)]
    assert prefilled(state) == [submit(R1, Leg.DECODE, D1)]


def test_a_short_prompt_skips_the_remote_prefill() -> None:
    """A handover would cost more than it saves."""
    state = router(joined(P1), joined(D1))
    commands = state.handle(arrived(R1, prompt_tokens=SHORT), now=0.0)
    assert commands == [submit(R1, Leg.WHOLE, D1)]


def test_without_prefill_workers_prompts_are_computed_where_they_are_decoded() -> None:
    """A cluster that lost one pool still serves."""
    assert router(joined(D1)).handle(arrived(R1), now=0.0) == [submit(R1, Leg.WHOLE, D1)]


def test_without_decode_workers_no_prompt_is_started() -> None:
    """Its KV would only wait."""
    state = router(joined(P1))
    assert state.handle(arrived(R1), now=0.0) == []
    assert state.handle(joined(D1), now=1.0) == [submit(R1, Leg.PREFILL, P1)]


def test_prompts_beyond_the_credits_wait_in_the_router() -> None:
    """So that a cancel is free and the order stays open."""
    state = router(joined(P1, prefill_credits=1), joined(D1))
    state.handle(arrived(R1), now=0.0)
    assert state.handle(arrived(R2), now=0.0) == []
    assert prefilled(state) == [submit(R1, Leg.DECODE, D1), submit(R2, Leg.PREFILL, P1)]


def test_a_full_queue_rejects_with_a_hint() -> None:
    """Promptly, and saying when to come back."""
    state = router(queue_requests_max=1)
    state.handle(arrived(R1), now=0.0)
    (end,) = state.handle(arrived(R2), now=0.0)
    assert isinstance(end, EndRequest)
    assert (end.stage, end.reason) == (Stage.REJECTED, Reason.OVERLOADED)
    assert end.retry_after_s is not None
    assert "queue_requests_max" in end.message


def test_waiting_has_a_limit_and_the_reason_says_what_was_missing() -> None:
    """NO_WORKER where there is none, OVERLOADED where there is no room."""
    state = router(wait_s_max=5)
    state.handle(arrived(R1), now=0.0)
    assert state.next_deadline() == 5.0
    (end,) = state.handle(TimerFired(), now=5.0)
    assert isinstance(end, EndRequest)
    assert (end.stage, end.reason) == (Stage.REJECTED, Reason.NO_WORKER)


def test_the_lease_is_renewed_while_the_kv_waits_and_released_on_cancel() -> None:
    """Nothing else keeps it between the legs, and nothing else frees it."""
    state = router(joined(P1), joined(D1, requests_max=1))
    state.handle(arrived(R2, prompt_tokens=SHORT), now=0.0)
    state.handle(arrived(R1), now=0.0)
    assert prefilled(state, now=1.0) == []
    assert state.next_deadline() == 11.0
    renewal = RenewHandover(request_id=R1, attempt=1, worker_id=P1)
    assert state.handle(TimerFired(), now=11.0) == [renewal]
    release, end = state.handle(RequestCancelled(request_id=R1), now=12.0)
    assert release == ReleaseHandover(request_id=R1, attempt=1, worker_id=P1)
    assert isinstance(end, EndRequest)


def test_after_the_first_token_the_source_is_forgotten() -> None:
    """The KV has been pulled: a cancel goes to the decode worker alone."""
    state = router(joined(P1), joined(D1))
    state.handle(arrived(R1), now=0.0)
    prefilled(state)
    assert state.handle(step(1), now=2.0) == []
    cancel, end = state.handle(RequestCancelled(request_id=R1), now=3.0)
    assert cancel == CancelLeg(request_id=R1, attempt=1, worker_id=D1)
    assert isinstance(end, EndRequest)
    explanation = state.explain(R1)
    assert explanation is not None
    assert explanation.tokens_delivered == 1


def test_a_refused_decode_leg_goes_to_another_worker_with_the_same_kv() -> None:
    """The handover is still valid; nothing is prefilled again."""
    state = router(joined(P1), joined(D1), joined(D2))
    state.handle(arrived(R1), now=0.0)
    prefilled(state)
    refusal = LegRefused(
        request_id=R1,
        attempt=1,
        leg=Leg.DECODE,
        worker_id=D1,
        reason=Reason.OVERLOADED,
        message="full",
    )
    assert state.handle(refusal, now=2.0) == [submit(R1, Leg.DECODE, D2)]


def test_a_worker_lost_before_the_first_token_costs_an_attempt() -> None:
    """The next one starts at once, elsewhere."""
    state = router(joined(D1), joined(D2))
    state.handle(arrived(R1), now=0.0)
    lost = WorkerLost(worker_id=D1, incarnation=FIRST, cause="killed")
    assert state.handle(lost, now=1.0) == [submit(R1, Leg.WHOLE, D2, attempt=2)]
    lost = WorkerLost(worker_id=D2, incarnation=FIRST, cause="killed")
    assert state.handle(lost, now=2.0) == []
    explanation = state.explain(R1)
    assert explanation is not None
    assert [each.kind for each in explanation.decisions] == [
        "admit",
        "decode",
        "retry",
        "decode",
        "retry",
    ]


def test_a_handover_outlives_the_worker_that_was_to_pull_it() -> None:
    """The same try goes to another one; but not for ever, and not beyond its source."""
    state = router(joined(P1), joined(D1), joined(D2), attempts_max=2)
    state.handle(arrived(R1), now=0.0)
    assert prefilled(state) == [submit(R1, Leg.DECODE, D1)]
    lost = WorkerLost(worker_id=D1, incarnation=FIRST, cause="killed")
    assert state.handle(lost, now=2.0) == [submit(R1, Leg.DECODE, D2)]
    state.handle(joined(D1, incarnation=Incarnation("2")), now=3.0)
    lost = WorkerLost(worker_id=D2, incarnation=FIRST, cause="killed")
    released, ended = state.handle(lost, now=4.0)
    assert released == ReleaseHandover(request_id=R1, attempt=1, worker_id=P1)
    assert isinstance(ended, EndRequest)
    assert ended.reason is Reason.WORKER_LOST


def test_a_handover_ends_with_its_source() -> None:
    """Then the prompt is computed again."""
    state = router(joined(P1), joined(D1))
    state.handle(arrived(R1), now=0.0)
    assert prefilled(state) == [submit(R1, Leg.DECODE, D1)]
    state.handle(WorkerLost(worker_id=P1, incarnation=FIRST, cause="killed"), now=2.0)
    state.handle(joined(D2), now=3.0)
    lost = WorkerLost(worker_id=D1, incarnation=FIRST, cause="killed")
    assert state.handle(lost, now=4.0) == [submit(R1, Leg.WHOLE, D2, attempt=2)]


def test_a_restarted_worker_replaces_its_former_self() -> None:
    """A new incarnation under the same name loses what the old one had."""
    state = router(joined(D1))
    state.handle(arrived(R1), now=0.0)
    again = joined(D1, incarnation=Incarnation("2"))
    assert state.handle(again, now=1.0) == [submit(R1, Leg.WHOLE, D1, attempt=2)]


def test_a_drained_worker_may_come_back() -> None:
    """When the store has forgotten it for a moment, its legs go on and new ones follow."""
    state = router(joined(D1))
    state.handle(WorkerDrained(worker_id=D1, incarnation=FIRST), now=0.0)
    assert state.statistics().workers[Role.DECODE] == 0
    assert state.handle(arrived(R1), now=0.0) == []
    assert state.handle(joined(D1), now=1.0) == [submit(R1, Leg.WHOLE, D1)]


def test_reading_reports_only_go_forward() -> None:
    """A late, smaller count is ignored."""
    state = router(joined(D1))
    state.handle(arrived(R1), now=0.0)
    for tokens_read in (7, 3):
        state.handle(ReadingReported(request_id=R1, tokens_read=tokens_read), now=1.0)
    explanation = state.explain(R1)
    assert explanation is not None
    assert explanation.tokens_read == 7


@pytest.mark.parametrize("step_s", [0.05, 0.2, 0.7])
def test_steps_told_of_together_are_read_as_if_told_one_by_one(step_s: float) -> None:
    """Whether they come faster than he reads, as fast, or slower."""
    apart, together = router(joined(D1)), router(joined(D1))
    for state in (apart, together):
        state.handle(arrived(R1, prompt_tokens=SHORT), now=0.0)
        state.handle(step(1), now=1.0)
    for n in range(1, 8):
        apart.handle(step(1), now=1.0 + n * step_s)
    at_once = replace(step(7), first_at=1.0 + step_s)
    together.handle(at_once, now=1.0 + 7 * step_s)
    views = [state.view(R1) for state in (apart, together)]
    assert views[0] is not None
    assert views[1] is not None
    assert views[0].reads_until == pytest.approx(views[1].reads_until)
    assert views[0].tokens_delivered == views[1].tokens_delivered == 8
