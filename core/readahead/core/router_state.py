"""The router's decisions: events in, commands out, nothing else.

Prompts wait here and not in the workers, so that their order stays open and a cancel is free.
The live router, the simulator and the replay of a recorded log all run this object.
"""

from __future__ import annotations

from typing import assert_never

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.config import CoreConfig
from readahead.core.endings import Endings
from readahead.core.errors import REASONS, Blame, Reason
from readahead.core.lines import Lines
from readahead.core.live_request import LiveRequest
from readahead.core.messages import (
    CancelLeg,
    Command,
    EndRequest,
    Event,
    Explanation,
    LegFailed,
    LegFinished,
    LegRefused,
    PrefillFinished,
    ReadingReported,
    ReleaseHandover,
    RenewHandover,
    RequestArrived,
    RequestCancelled,
    Statistics,
    StepObserved,
    SubmitLeg,
    TimerFired,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.placement.dispatch import Dispatch, next_dispatch
from readahead.core.pools import REST_S, LiveWorker, Pools
from readahead.core.request import FinishReason, Leg, RequestId, Stage, WorkerId
from readahead.core.timers import Timers

RENEWALS_PER_LEASE = 3
"""A lost renewal or two must not cost the KV."""
_WAIT, _DEADLINE, _RENEW, _REST = "wait", "deadline", "renew", "rest"


class RouterState:
    """All requests and workers of one router.

    `handle` is total: an event that no longer applies (another attempt, another incarnation, a
    request that has ended) changes nothing, but frees a late handover's KV.
    """

    def __init__(self, config: CoreConfig) -> None:
        self._config = config
        self._pools = Pools()
        self._live: dict[RequestId, LiveRequest] = {}
        self._lines = Lines()
        self._endings = Endings()
        self._timers: Timers[tuple[str, str]] = Timers()
        self._commands: list[Command] = []

    def handle(self, event: Event, *, now: float) -> list[Command]:
        """Takes one event and returns what is to be done about it, in order.

        Args:
            event: what happened.
            now: seconds on the driver's monotonic clock; never less than in an earlier call.
        """
        self._commands = []
        self._take(event, now)
        while found := next_dispatch(self._lines, self._pools, now=now):
            self._submit(found, now)
        return self._commands

    def next_deadline(self) -> float | None:
        """When a TimerFired is due, seconds on the driver's clock; None for never."""
        return self._timers.next_at()

    def explain(self, request_id: RequestId) -> Explanation | None:
        """What was decided for a live or recently ended request."""
        live = self._live.get(request_id)
        return live.explanation() if live else self._endings.get(request_id)

    def statistics(self) -> Statistics:
        """Counts for gauges."""
        by_stage = {stage: 0 for stage in Stage if not stage.is_final}
        for request in self._live.values():
            by_stage[request.stage] += 1
        workers = dict.fromkeys(Role, 0)
        for worker in self._pools:
            workers[worker.description.role] += not worker.is_draining
        return Statistics(by_stage=by_stage, workers=workers)

    # Events

    def _take(self, event: Event, now: float) -> None:  # noqa: PLR0912 - one branch per event
        match event:
            case StepObserved():
                self._observe(event, now)
            case RequestArrived():
                self._arrive(event, now)
            case RequestCancelled():
                if request := self._live.get(event.request_id):
                    self._abandon(request, Reason.CANCELLED, "the caller left", now)
            case PrefillFinished():
                self._prefilled(event, now)
            case LegFinished():
                if request := self._current(event.request_id, event.attempt, event.worker_id):
                    self._finish(request, event.finish_reason, now)
            case LegRefused():
                self._refused(event, now)
            case LegFailed():
                if request := self._current(event.request_id, event.attempt, event.worker_id):
                    self._retry(request, event.reason, f"{event.worker_id}: {event.message}", now)
            case WorkerJoined(description=description):
                self._join(description, now)
            case WorkerDrained():
                if worker := self._pools.get(event.worker_id, event.incarnation):
                    worker.is_draining = True
            case WorkerLost():
                if worker := self._pools.get(event.worker_id, event.incarnation):
                    self._lose(worker, event.cause, now)
            case ReadingReported():
                if request := self._live.get(event.request_id):
                    request.tokens_read = max(request.tokens_read, event.tokens_read)
            case TimerFired():
                self._fire(now)
            case _:
                assert_never(event)

    def _join(self, description: WorkerDescription, now: float) -> None:
        known = self._pools.get(description.worker_id)
        if known is not None and known.description.incarnation == description.incarnation:
            known.is_draining = False
            return
        if known is not None:
            self._lose(known, f"replaced by incarnation {description.incarnation}", now)
        self._pools.add(description, now=now)

    def _observe(self, event: StepObserved, now: float) -> None:
        if worker := self._pools.get(event.worker_id, event.incarnation):
            worker.load, worker.observed_at = event.load, now
        for made in event.made:
            request = self._live.get(made.request_id)
            if request is None or request.attempt != made.attempt:
                continue
            if not request.tokens_delivered:
                self._pools.let_go(request)
            request.tokens_delivered += made.tokens

    def _arrive(self, event: RequestArrived, now: float) -> None:
        assert event.request_id not in self._live, event.request_id
        request = LiveRequest(
            request_id=event.request_id,
            prompt_tokens=event.prompt_tokens,
            output_tokens_max=event.output_tokens_max,
            pace_tok_s=event.pace_tok_s,
            arrived_at=now,
            waits_since=now,
        )
        self._live[event.request_id] = request
        waiting = self._lines.prompts
        limit = self._config.admission.queue_requests_max
        if waiting >= limit:
            message = f"{waiting} requests wait already (queue_requests_max = {limit})"
            self._end(request, Stage.REJECTED, now, reason=Reason.OVERLOADED, message=message)
            return
        request.note("admit", f"queued behind {waiting}", now=now)
        if event.deadline is not None:
            self._timers.set((_DEADLINE, request.request_id), event.deadline)
        self._enqueue(request)

    def _prefilled(self, event: PrefillFinished, now: float) -> None:
        request = self._current(event.request_id, event.attempt, event.worker_id)
        worker = self._pools.get(event.worker_id)
        if request is None or worker is None or request.leg is not Leg.PREFILL:
            self._tell(ReleaseHandover, event, event.worker_id)
            return
        self._pools.unseat(request)
        self._pools.hold(request, worker)
        request.waits_since = now
        self._await_decode(request, worker, now)

    def _refused(self, event: LegRefused, now: float) -> None:
        request = self._current(event.request_id, event.attempt, event.worker_id)
        if request is None or request.leg is not event.leg:
            return
        worker = self._pools.get(event.worker_id)
        if worker is not None:
            worker.rests_until = now + REST_S
            self._timers.set((_REST, worker.worker_id), worker.rests_until)
        why = f"{event.worker_id} refused: {event.message}"
        source = self._pools.get(request.source_id)
        if REASONS[event.reason].blame is Blame.CALLER:
            self._abandon(request, event.reason, event.message, now)
        elif event.leg is Leg.DECODE and source is not None:
            self._pools.unseat(request)
            request.note("retry", why, now=now)
            self._await_decode(request, source, now)
        else:
            self._try_again(request, why, now)

    def _lose(self, worker: LiveWorker, cause: str, now: float) -> None:
        self._pools.remove(worker.worker_id)
        self._timers.cancel((_REST, worker.worker_id))
        why = f"{worker.worker_id} was lost: {cause}"
        for request_id in [*worker.legs, *worker.handovers]:
            request = self._live[request_id]
            if request.worker_id == worker.worker_id or request.stage is Stage.HANDOVER:
                self._retry(request, Reason.WORKER_LOST, why, now)
            else:
                request.source_id = None

    def _fire(self, now: float) -> None:
        for kind, name in self._timers.pop_due(now):
            request = self._live.get(RequestId(name))
            if request is None:
                continue
            if kind == _DEADLINE:
                message = f"its deadline came while {request.stage}"
                self._abandon(request, Reason.DEADLINE_EXCEEDED, message, now)
            elif kind == _WAIT:
                self._abandon(request, *self._why_waiting(request), now)
            elif kind == _RENEW and (source := self._pools.get(request.source_id)):
                self._renew(request, source, now)

    # Moves

    def _enqueue(self, request: LiveRequest, *, is_first: bool = False) -> None:
        is_short = request.prompt_tokens < self._config.placement.remote_prefill_tokens_min
        leg = Leg.WHOLE if is_short else Leg.PREFILL
        self._lines.join(request, leg, is_first=is_first)
        self._limit_wait(request)

    def _limit_wait(self, request: LiveRequest) -> None:
        until = request.waits_since + self._config.admission.wait_s_max
        self._timers.set((_WAIT, request.request_id), until)

    def _await_decode(self, request: LiveRequest, source: LiveWorker, now: float) -> None:
        """Waits between the legs. Renewals go on until the first token: nobody else's are sure."""
        request.move(Stage.HANDOVER)
        request.note("handover", "KV is ready", now=now, worker_id=source.worker_id)
        self._lines.join(request, Leg.DECODE)
        self._limit_wait(request)
        self._timers.set((_RENEW, request.request_id), now + _renewal_s(source))

    def _renew(self, request: LiveRequest, source: LiveWorker, now: float) -> None:
        self._tell(RenewHandover, request, source.worker_id)
        self._timers.set((_RENEW, request.request_id), now + _renewal_s(source))

    def _submit(self, found: Dispatch, now: float) -> None:
        request, leg, placement = found.request, found.leg, found.placement
        self._lines.leave(request)
        self._pools.seat(request, leg, placement.worker_id, tokens=found.tokens)
        request.move(Stage.PREFILLING if leg is Leg.PREFILL else Stage.DECODING)
        self._timers.cancel((_WAIT, request.request_id))
        request.note(
            "prefill" if leg is Leg.PREFILL else "decode",
            f"{leg} leg: {placement.reason}",
            now=now,
            worker_id=placement.worker_id,
            costs=placement.costs,
        )
        self._commands.append(
            SubmitLeg(
                request_id=request.request_id,
                attempt=request.attempt,
                leg=leg,
                worker_id=placement.worker_id,
            )
        )

    def _retry(self, request: LiveRequest, reason: Reason, why: str, now: float) -> None:
        """Starts the next attempt, unless that cannot help or text was delivered already."""
        if REASONS[reason].blame is Blame.CALLER:
            self._abandon(request, reason, why, now)
        elif request.tokens_delivered:
            message = f"after {request.tokens_delivered} tokens, {why}"
            self._abandon(request, Reason.STREAM_BROKEN, message, now)
        elif request.failures + 1 >= self._config.admission.attempts_max:
            message = f"{why} (failure {request.failures + 1}, the last allowed)"
            self._abandon(request, reason, message, now)
        else:
            request.failures += 1
            request.waits_since = now
            self._try_again(request, why, now)

    def _try_again(self, request: LiveRequest, why: str, now: float) -> None:
        """Goes back to the head of its line. A refusal, unlike a failure, does not renew patience,
        so `wait_s_max` bounds how often a full worker is asked."""
        self._withdraw(request)
        request.attempt += 1
        request.note("retry", why, now=now)
        request.move(Stage.QUEUED)
        self._enqueue(request, is_first=True)

    # Ends

    def _abandon(self, request: LiveRequest, reason: Reason, message: str, now: float) -> None:
        """Ends a request badly, wherever it is."""
        self._withdraw(request)
        if reason is Reason.CANCELLED:
            stage = Stage.CANCELLED
        elif request.stage is Stage.QUEUED and request.attempt == 1:
            stage = Stage.REJECTED
        else:
            stage = Stage.FAILED
        self._end(request, stage, now, reason=reason, message=message)

    def _finish(self, request: LiveRequest, finish_reason: FinishReason, now: float) -> None:
        self._pools.unseat(request)
        self._pools.let_go(request)
        self._end(request, Stage.FINISHED, now, finish_reason=finish_reason)

    def _end(
        self,
        request: LiveRequest,
        stage: Stage,
        now: float,
        *,
        finish_reason: FinishReason | None = None,
        reason: Reason | None = None,
        message: str = "",
    ) -> None:
        request.move(stage)
        request.note("finish", message or f"{stage}: {finish_reason or reason}", now=now)
        for kind in (_WAIT, _DEADLINE, _RENEW):
            self._timers.cancel((kind, request.request_id))
        del self._live[request.request_id]
        self._endings.add(request.explanation(), now=now)
        hint_s = self._endings.retry_after_s(self._lines.prompts)
        is_retryable = reason is not None and REASONS[reason].is_retryable
        self._commands.append(
            EndRequest(
                request_id=request.request_id,
                stage=stage,
                finish_reason=finish_reason,
                reason=reason,
                message=message,
                retry_after_s=hint_s if is_retryable else None,
            )
        )

    def _withdraw(self, request: LiveRequest) -> None:
        """Takes a request out of wherever it is and frees what it holds there."""
        self._lines.leave(request)
        leg = request.leg
        if worker_id := self._pools.unseat(request):
            self._tell(CancelLeg, request, worker_id)
            if leg is Leg.PREFILL:  # it may have finished while the cancel was on its way
                self._tell(ReleaseHandover, request, worker_id)
        if source_id := self._pools.let_go(request):
            self._tell(ReleaseHandover, request, source_id)

    def _tell(
        self,
        command: type[CancelLeg | RenewHandover | ReleaseHandover],
        about: LiveRequest | PrefillFinished,
        worker_id: WorkerId,
    ) -> None:
        self._commands.append(
            command(request_id=about.request_id, attempt=about.attempt, worker_id=worker_id)
        )

    # Readings of the state

    def check(self) -> None:
        """Asserts the invariants of docs/reference/invariants.md; O(state)."""
        waiting = 0
        for request in self._live.values():
            assert not request.stage.is_final, request
            has_leg = request.stage in (Stage.PREFILLING, Stage.DECODING)
            assert has_leg == (request.worker_id is not None) == (request.leg is not None), request
            assert has_leg or (_WAIT, request.request_id) in self._timers, request
            waiting += not has_leg
        assert waiting == len(self._lines)
        self._pools.check(self._live)

    def _current(
        self, request_id: RequestId, attempt: int, worker_id: WorkerId
    ) -> LiveRequest | None:
        request = self._live.get(request_id)
        if request is None or (request.attempt, request.worker_id) != (attempt, worker_id):
            return None
        return request

    def _why_waiting(self, request: LiveRequest) -> tuple[Reason, str]:
        role = Role.PREFILL if request.stage is Stage.QUEUED else Role.DECODE
        limit = f"waited {self._config.admission.wait_s_max:g} s (wait_s_max)"
        if not self._pools.has(Role.DECODE):
            return Reason.NO_WORKER, f"{limit} and there is no decode worker"
        return Reason.OVERLOADED, f"{limit} and no {role} worker had room"


def _renewal_s(source: LiveWorker) -> float:
    return source.description.handover_lease_s / RENEWALS_PER_LEASE
