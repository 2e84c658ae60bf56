"""What the router makes of planners' verdicts: explained, bounded, begun anew with each try."""

from __future__ import annotations

from dataclasses import replace

import pytest
from toy_session import toy_description

from readahead.core.cluster import Role, WorkerLoad
from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.errors import Reason
from readahead.core.messages import (
    CancelLeg,
    Decision,
    EndRequest,
    LegFailed,
    LegJudged,
    PrefillFinished,
    ReleaseHandover,
    RequestArrived,
    StepObserved,
    SubmitLeg,
    TokensMade,
    WorkerJoined,
)
from readahead.core.promise import Verdict
from readahead.core.request import Incarnation, Leg, RequestId, Stage, WorkerId
from readahead.core.router_state import RouterState

P0, D0 = WorkerId("p0"), WorkerId("d0")
SHORT, LONG = 3, 500


def router(best_effort_requests_max: int = 10) -> RouterState:
    """With one worker of each role."""
    admission = AdmissionConfig(best_effort_requests_max=best_effort_requests_max)
    state = RouterState(CoreConfig(admission=admission))
    for worker_id, role in ((P0, Role.PREFILL), (D0, Role.DECODE)):
        state.handle(WorkerJoined(description=toy_description(worker_id, role)), now=0.0)
    return state


def arrive(
    state: RouterState, name: str, *, tokens: int = SHORT, first_token_s: float | None = None
) -> RequestId:
    """A request that is placed at once."""
    request_id = RequestId(name)
    commands = state.handle(
        RequestArrived(
            request_id=request_id,
            prompt_tokens=tokens,
            output_tokens_max=50,
            pace_tok_s=5.0,
            first_token_s=first_token_s,
        ),
        now=1.0,
    )
    assert [type(each) for each in commands] == [SubmitLeg]
    return request_id


def judged(
    request_id: RequestId, verdict: Verdict, worker_id: WorkerId = D0, attempt: int = 1
) -> LegJudged:
    return LegJudged(request_id=request_id, attempt=attempt, worker_id=worker_id, verdict=verdict)


def verdicts(state: RouterState, request_id: RequestId) -> list[Decision]:
    explanation = state.explain(request_id)
    assert explanation is not None
    return [each for each in explanation.decisions if each.kind == "verdict"]


def test_a_verdict_is_explained_with_the_time_that_was_left() -> None:
    """Of the worker that has the leg, in the order in which it came."""
    state = router()
    r = arrive(state, "r", first_token_s=0.25)
    state.handle(judged(r, Verdict.BEST_EFFORT), now=1.1)
    state.handle(judged(r, Verdict.ACCEPTED), now=1.5)
    first, second = verdicts(state, r)
    assert (first.worker_id, first.reason) == (D0, "best-effort: declined")
    assert first.slack_s == pytest.approx(0.15)
    assert second.slack_s == pytest.approx(-0.25)
    explanation = state.explain(r)
    assert explanation is not None
    assert explanation.verdict is Verdict.ACCEPTED
    assert "first token promised within 0.25 s" in explanation.decisions[0].reason


def test_news_of_another_leg_says_nothing() -> None:
    """Another attempt's, another worker's, one's that nobody knows."""
    state = router(best_effort_requests_max=0)
    r = arrive(state, "r")
    for stale in (
        judged(r, Verdict.BEST_EFFORT, attempt=2),
        judged(r, Verdict.BEST_EFFORT, worker_id=P0),
        judged(RequestId("nobody"), Verdict.BEST_EFFORT),
    ):
        assert state.handle(stale, now=1.1) == []
    assert verdicts(state, r) == []


def test_a_full_best_effort_queue_says_when_to_come_back() -> None:
    """Whoever is in it stays, and it has room again once one has ended or is accepted."""
    state = router(best_effort_requests_max=1)
    first, second, third, fourth = (arrive(state, name) for name in "abcd")
    assert state.handle(judged(first, Verdict.BEST_EFFORT), now=1.1) == []
    assert state.handle(judged(first, Verdict.BEST_EFFORT), now=1.1) == []
    cancel, end = state.handle(judged(second, Verdict.BEST_EFFORT), now=1.1)
    assert cancel == CancelLeg(request_id=second, attempt=1, worker_id=D0)
    assert isinstance(end, EndRequest)
    assert (end.stage, end.reason) == (Stage.FAILED, Reason.OVERLOADED)
    assert end.retry_after_s is not None
    assert end.retry_after_s > 0
    assert state.handle(judged(first, Verdict.ACCEPTED), now=1.2) == []
    assert state.handle(judged(third, Verdict.BEST_EFFORT), now=1.2) == []
    assert len(state.handle(judged(fourth, Verdict.BEST_EFFORT), now=1.3)) == 2
    state.check()


def test_the_hint_grows_with_those_who_are_before() -> None:
    """So that all who were refused do not come back at once."""
    hints = []
    for limit in (1, 20):
        state = router(best_effort_requests_max=limit)
        for index in range(limit):
            state.handle(judged(arrive(state, f"a{index}"), Verdict.BEST_EFFORT), now=1.1)
        end = state.handle(judged(arrive(state, "b"), Verdict.BEST_EFFORT), now=1.1)[-1]
        assert isinstance(end, EndRequest)
        assert end.retry_after_s is not None
        hints.append(end.retry_after_s)
    assert hints[1] > hints[0]


def test_nobody_is_refused_after_his_first_token() -> None:
    """He is served from what is left over, as any other; and counts."""
    state = router(best_effort_requests_max=1)
    r, other = arrive(state, "r"), arrive(state, "other")
    state.handle(judged(other, Verdict.BEST_EFFORT), now=1.1)
    made = TokensMade(request_id=r, attempt=1, tokens=1)
    load = WorkerLoad(running=1, waiting=0, kv_blocks_free=1)
    step = StepObserved(worker_id=D0, incarnation=Incarnation("1"), load=load, made=(made,))
    state.handle(step, now=1.2)
    assert state.handle(judged(r, Verdict.BEST_EFFORT), now=1.2) == []
    late = arrive(state, "late")
    comes_along = replace(judged(late, Verdict.BEST_EFFORT), has_output=True)
    assert state.handle(comes_along, now=1.3) == []


def test_a_handover_of_one_who_is_refused_is_freed() -> None:
    """Its prompt's end was on its way when the verdict came."""
    state = router(best_effort_requests_max=0)
    r = arrive(state, "r", tokens=LONG)
    commands = state.handle(judged(r, Verdict.BEST_EFFORT, worker_id=P0), now=1.1)
    assert ReleaseHandover(request_id=r, attempt=1, worker_id=P0) in commands
    late = state.handle(PrefillFinished(request_id=r, attempt=1, worker_id=P0), now=1.2)
    assert late == [ReleaseHandover(request_id=r, attempt=1, worker_id=P0)]
    state.check()


def test_a_verdict_lasts_over_a_handover_and_not_over_a_new_try() -> None:
    """The decode worker goes on from it; another planner begins anew."""
    state = router()
    r = arrive(state, "r", tokens=LONG)
    state.handle(judged(r, Verdict.BEST_EFFORT, worker_id=P0), now=1.1)
    [decode] = state.handle(PrefillFinished(request_id=r, attempt=1, worker_id=P0), now=1.2)
    assert isinstance(decode, SubmitLeg)
    assert decode.leg is Leg.DECODE
    explanation = state.explain(r)
    assert explanation is not None
    assert explanation.verdict is Verdict.BEST_EFFORT
    failed = LegFailed(
        request_id=r, attempt=1, worker_id=D0, reason=Reason.ENGINE_FAILED, message="broke"
    )
    again = state.handle(failed, now=1.3)
    assert SubmitLeg(request_id=r, attempt=2, leg=Leg.PREFILL, worker_id=P0) in again
    explanation = state.explain(r)
    assert explanation is not None
    assert explanation.verdict is Verdict.NEW
