"""What events do to requests and workers."""

from __future__ import annotations

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.errors import REASONS, Blame, Reason
from readahead.core.ledger import Alarm, Ledger
from readahead.core.lifecycle import Lifecycle
from readahead.core.live_request import LiveRequest
from readahead.core.messages import (
    LegFailed,
    LegFinished,
    LegJudged,
    LegRefused,
    PrefillFinished,
    ReadingReported,
    ReleaseHandover,
    RequestArrived,
    RequestCancelled,
    StepObserved,
    WorkerDrained,
    WorkerLost,
)
from readahead.core.pools import REST_S, LiveWorker
from readahead.core.promise import Verdict
from readahead.core.request import Leg, RequestId, Stage


class News:
    """One method for each kind of event. What no longer applies changes nothing, but frees a late
    handover's KV."""

    def __init__(self, ledger: Ledger, lifecycle: Lifecycle) -> None:
        self._ledger, self._lifecycle = ledger, lifecycle
        self._live, self._pools = ledger.live, ledger.pools
        self._declined: set[RequestId] = set()
        """Those whom planners have declined, and some who have ended or were accepted since."""

    # Of requests

    def arrived(self, event: RequestArrived, now: float) -> None:
        """Lets it in, or not."""
        assert event.request_id not in self._live, event.request_id
        request = LiveRequest(
            request_id=event.request_id,
            prompt_tokens=event.prompt_tokens,
            output_tokens_max=event.output_tokens_max,
            pace_tok_s=event.pace_tok_s,
            arrived_at=now,
            waits_since=now,
            first_due_at=None if event.first_token_s is None else now + event.first_token_s,
        )
        self._live[event.request_id] = request
        waiting = self._ledger.lines.prompts
        limit = self._ledger.config.admission.queue_requests_max
        if waiting >= limit:
            message = f"{waiting} requests wait already (queue_requests_max = {limit})"
            self._lifecycle.end(
                request, Stage.REJECTED, now, reason=Reason.OVERLOADED, message=message
            )
            return
        why = f"queued behind {waiting}"
        if event.first_token_s is not None:
            why += f"; first token promised within {event.first_token_s:.3g} s"
        request.note("admit", why, now=now)
        if event.deadline is not None:
            self._ledger.timers.set((Alarm.DEADLINE, request.request_id), event.deadline)
        self._lifecycle.enqueue(request)

    def cancelled(self, event: RequestCancelled, now: float) -> None:
        """Ends it, wherever it is."""
        if request := self._live.get(event.request_id):
            self._lifecycle.abandon(request, Reason.CANCELLED, "the caller left", now)

    def read(self, event: ReadingReported, now: float) -> None:
        """Corrects its reader's clock."""
        if request := self._live.get(event.request_id):
            request.tokens_read = max(request.tokens_read, event.tokens_read)
            request.clock.acknowledge(event.tokens_read, now=now)

    # Of legs

    def prefilled(self, event: PrefillFinished, now: float) -> None:
        """Its KV waits to be pulled."""
        request = self._ledger.current(event.request_id, event.attempt, event.worker_id)
        worker = self._pools.get(event.worker_id)
        if request is None or worker is None or request.leg is not Leg.PREFILL:
            self._ledger.tell(ReleaseHandover, event, event.worker_id)
            return
        self._pools.unseat(request)
        self._pools.hold(request, worker)
        request.waits_since = now
        self._lifecycle.await_decode(request, worker, now)

    def observed(self, event: StepObserved, now: float) -> None:
        """A worker's load, and the tokens that it made. O(tokens)."""
        worker = self._pools.get(event.worker_id, event.incarnation)
        most = 0
        for made in event.made:
            request = self._live.get(made.request_id)
            if request is None or request.attempt != made.attempt:
                continue
            if not request.tokens_delivered:
                self._pools.let_go(request)
            tokens = made.tokens
            request.tokens_delivered += tokens
            request.delivered_at = now
            if event.first_at is None or tokens == 1:
                request.clock.deliver(tokens, now=now)
            else:
                # Evenly: he waits for the first or for the last, and for none between them.
                request.clock.deliver(tokens - 1, now=event.first_at)
                request.clock.deliver(1, now=now)
            if tokens > most:
                most = tokens
        if worker is not None:
            worker.observe(event.load, most, now=now)

    def judged(self, event: LegJudged, now: float) -> None:
        """Notes what a planner has decided. One who is declined gets what is left over, unless
        too many do already."""
        request = self._ledger.current(event.request_id, event.attempt, event.worker_id)
        if request is None:
            return
        request.verdict = event.verdict
        why = "its promise is kept" if event.verdict is Verdict.ACCEPTED else "declined"
        request.note("verdict", f"{event.verdict}: {why}", now=now, worker_id=event.worker_id)
        if event.verdict is not Verdict.BEST_EFFORT:
            return
        others = self._best_effort() - {request.request_id}
        self._declined = {*others, request.request_id}
        limit = self._ledger.config.admission.best_effort_requests_max
        if event.has_output or request.tokens_delivered or len(others) < limit:
            return
        message = f"declined, and {len(others)} others are (best_effort_requests_max = {limit})"
        self._lifecycle.abandon(request, Reason.OVERLOADED, message, now, ahead=len(others))

    def _best_effort(self) -> set[RequestId]:
        """Those who are served from what is left over."""
        live, declined = self._live, Verdict.BEST_EFFORT
        return {each for each in self._declined if each in live and live[each].verdict is declined}

    def finished(self, event: LegFinished, now: float) -> None:
        """All its tokens are made."""
        if request := self._ledger.current(event.request_id, event.attempt, event.worker_id):
            self._lifecycle.finish(request, event.finish_reason, now)

    def refused(self, event: LegRefused, now: float) -> None:
        """Asks another worker, and leaves this one alone for a moment."""
        request = self._ledger.current(event.request_id, event.attempt, event.worker_id)
        if request is None or request.leg is not event.leg:
            return
        self._lifecycle.call_off(request, now)
        if worker := self._pools.get(event.worker_id):
            self.rest(worker, now)
        why = f"{event.worker_id} refused: {event.message}"
        source = self._pools.get(request.source_id)
        if REASONS[event.reason].blame is Blame.CALLER:
            self._lifecycle.abandon(request, event.reason, event.message, now)
        elif event.leg is Leg.DECODE and source is not None:
            self._pools.unseat(request)
            request.note("retry", why, now=now)
            self._lifecycle.await_decode(request, source, now)
        else:
            self._lifecycle.try_again(request, why, now)

    def failed(self, event: LegFailed, now: float) -> None:
        """The worker gave it up."""
        if request := self._ledger.current(event.request_id, event.attempt, event.worker_id):
            why = f"{event.worker_id}: {event.message}"
            self._lifecycle.retry(request, event.reason, why, now)

    # Of workers

    def joined(self, description: WorkerDescription, now: float) -> None:
        """It takes legs from now on, or again."""
        known = self._pools.get(description.worker_id)
        if known is not None and known.description.incarnation == description.incarnation:
            known.is_draining = False
            return
        if known is not None:
            self._lose(known, f"replaced by incarnation {description.incarnation}", now)
        self._pools.add(description, now=now)

    def drained(self, event: WorkerDrained) -> None:
        """It takes no new legs."""
        if worker := self._pools.get(event.worker_id, event.incarnation):
            worker.is_draining = True

    def lost(self, event: WorkerLost, now: float) -> None:
        """It is gone, and what it had with it."""
        if worker := self._pools.get(event.worker_id, event.incarnation):
            self._lose(worker, event.cause, now)

    def _lose(self, worker: LiveWorker, cause: str, now: float) -> None:
        self._ledger.timers.cancel((Alarm.REST, worker.worker_id))
        for request_id in [*worker.arrivals]:
            request = self._live[request_id]
            self._lifecycle.call_off(request, now)
            request.note("migrate", f"{worker.worker_id} was lost before the commit", now=now)
        self._pools.remove(worker.worker_id)
        why = f"{worker.worker_id} was lost: {cause}"
        for request_id in [*worker.legs, *worker.handovers]:
            request = self._live[request_id]
            if request.worker_id == worker.worker_id or request.stage is Stage.HANDOVER:
                self._lifecycle.recover(request, Reason.WORKER_LOST, why, now)
            else:
                request.source_id = None

    def rest(self, worker: LiveWorker, now: float) -> None:
        """Leaves a worker alone for a moment, since it refused."""
        worker.rests_until = now + REST_S
        self._ledger.timers.set((Alarm.REST, worker.worker_id), worker.rests_until)

    # Of time

    def came(self, alarm: Alarm, name: str, now: float) -> None:
        """A request's timer is due."""
        request = self._live.get(RequestId(name))
        if request is None:
            return
        if alarm is Alarm.DEADLINE:
            message = f"its deadline came while {request.stage}"
            self._lifecycle.abandon(request, Reason.DEADLINE_EXCEEDED, message, now)
        elif alarm is Alarm.WAIT:
            self._lifecycle.abandon(request, *self._why_waiting(request), now)
        elif alarm is Alarm.RENEW and (source := self._pools.get(request.source_id)):
            self._lifecycle.renew(request, source, now)

    def _why_waiting(self, request: LiveRequest) -> tuple[Reason, str]:
        role = Role.PREFILL if request.stage is Stage.QUEUED else Role.DECODE
        limit = f"waited {self._ledger.config.admission.wait_s_max:g} s (wait_s_max)"
        if not self._pools.has(Role.DECODE):
            return Reason.NO_WORKER, f"{limit} and there is no decode worker"
        return Reason.OVERLOADED, f"{limit} and no {role} worker had room"
