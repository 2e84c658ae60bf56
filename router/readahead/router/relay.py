"""From a worker's step to the sessions and the core: the path of every token."""

from __future__ import annotations

from collections.abc import Callable

from readahead.core.errors import Reason
from readahead.core.messages import (
    Event,
    LegFailed,
    LegFinished,
    LegJudged,
    PrefillFinished,
    StepObserved,
    TokensMade,
)
from readahead.core.request import Leg, RequestId
from readahead.router import metrics, wire
from readahead.router.driver import Driver
from readahead.router.links import WorkerLink
from readahead.router.outbox import LegKey
from readahead.router.session import LiveSession
from readahead.runtime.clock import monotonic_s
from readahead.runtime.telemetry import attributes
from readahead.v1 import worker_service_pb2 as pb


class Relay:
    """Sorts each step's news into sessions, then tells the core."""

    def __init__(self, driver: Driver, *, now: Callable[[], float] = monotonic_s) -> None:
        self._driver = driver
        self._now = now

    def on_step(self, link: WorkerLink, response: pb.StepsResponse) -> None:
        """Relays one step. Endings are told after the tokens that came with them."""
        now = self._now()
        sessions = self._driver.sessions
        moves = self._driver.moves
        worker_id = link.worker_id
        made: list[TokensMade] = []
        judged: list[Event] = []
        ends: list[Event] = []
        tokens = 0
        for delta in response.deltas:
            request_id = RequestId(delta.request_id)
            session = sessions.get(request_id)
            if session is None or (
                (session.leg_number != delta.attempt or session.worker_id != worker_id)
                and (
                    _is_verdict_alone(delta)
                    or not (moves and moves.takes_over(session, link, delta))
                )
            ):
                if not _is_verdict_alone(delta):
                    self._drop(link, delta)
                continue
            if delta.verdict and (found := _judge(session, delta)):
                judged.append(found)
            token_ids = delta.token_ids
            text = delta.text
            if (token_ids or text) and session.leg is not Leg.PREFILL:
                is_first = session.first_token_at is None and delta.HasField("timings")
                wait_s = delta.timings.wait_ns / 1e9 if is_first else None
                session.push(text, token_ids, wait_s=wait_s, now=now)
                count = len(token_ids)
                if count:
                    tokens += count
                    made.append(
                        TokensMade(request_id=request_id, attempt=session.attempt, tokens=count)
                    )
            if delta.HasField("end"):
                is_bad = wire.finish_from_proto(delta.end.reason) is None
                if not (moves and is_bad and moves.survives(session)):
                    ends.append(_end_of(session, delta.end, now=now))
        if moves:
            moves.relayed()
        metrics.STEPS.inc()
        if tokens:
            metrics.TOKENS.inc(tokens)
        step = StepObserved(
            worker_id=worker_id,
            incarnation=link.description.incarnation,
            load=wire.load_from_proto(response.load),
            made=tuple(made),
        )
        self._driver.handle(*judged, step, *ends)

    def _drop(self, link: WorkerLink, delta: pb.LegDelta) -> None:
        """News of a leg that nobody waits for: what it holds on the worker is freed."""
        metrics.STALE_DELTAS.inc()
        key = LegKey(RequestId(delta.request_id), delta.attempt)
        if not delta.HasField("end"):
            link.cancel(key)
        elif delta.end.handover:
            link.release(key)


def _is_verdict_alone(delta: pb.LegDelta) -> bool:
    """It says nothing else: a leg that is about to move here is judged before it is taken over."""
    return bool(delta.verdict) and not (delta.token_ids or delta.text or delta.HasField("end"))


def _judge(session: LiveSession, delta: pb.LegDelta) -> LegJudged | None:
    verdict = wire.verdict_from_proto(delta.verdict)
    if verdict is None or verdict is session.verdict:
        return None
    session.verdict = verdict
    assert session.worker_id is not None
    return LegJudged(
        request_id=session.request_id,
        attempt=session.attempt,
        worker_id=session.worker_id,
        verdict=verdict,
        has_output=bool(session.output_tokens or delta.token_ids or delta.text),
    )


def _end_of(session: LiveSession, end: pb.LegEnd, *, now: float) -> Event:
    request_id, attempt, worker_id = session.request_id, session.attempt, session.worker_id
    assert worker_id is not None
    finish_reason = wire.finish_from_proto(end.reason)
    if finish_reason is None:
        reason, message = wire.error_from_proto(end)
    elif session.leg is not Leg.PREFILL:
        return LegFinished(
            request_id=request_id,
            attempt=attempt,
            worker_id=worker_id,
            finish_reason=finish_reason,
        )
    elif end.handover:
        session.prefilled(end.handover, now=now)
        session.trace.enter(attributes.SPAN_HANDOVER, attempt=attempt, worker_id=worker_id)
        return PrefillFinished(request_id=request_id, attempt=attempt, worker_id=worker_id)
    else:
        reason, message = Reason.ENGINE_FAILED, "the prefill worker kept no KV"
    session.detach()
    session.trace.interrupt(message, leg=None)
    return LegFailed(
        request_id=request_id,
        attempt=attempt,
        worker_id=worker_id,
        reason=reason,
        message=message,
    )
