"""How a request moves from stage to stage, and how it ends."""

from __future__ import annotations

from readahead.core.errors import REASONS, Blame, Reason
from readahead.core.ledger import Alarm, Ledger
from readahead.core.live_request import LiveRequest
from readahead.core.messages import (
    AbortMigration,
    CancelLeg,
    EndRequest,
    ReleaseHandover,
    RenewHandover,
    SubmitLeg,
)
from readahead.core.placement.dispatch import Dispatch
from readahead.core.pools import LiveWorker
from readahead.core.promise import Verdict
from readahead.core.request import FinishReason, Leg, Stage

RENEWALS_PER_LEASE = 3
"""A lost renewal or two must not cost the KV."""


class Lifecycle:
    """The moves that the events of `news` and the decisions of `placement` bring about."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pools, self._lines = ledger.pools, ledger.lines
        self._timers = ledger.timers
        self._admission = ledger.config.admission

    # Moves

    def enqueue(self, request: LiveRequest, *, is_first: bool = False) -> None:
        """Puts it in the line of its first leg."""
        placement = self._ledger.config.placement
        is_short = request.prompt_tokens < placement.remote_prefill_tokens_min
        leg = Leg.WHOLE if is_short else Leg.PREFILL
        self._lines.join(request, leg, is_first=is_first)
        self._limit_wait(request)

    def _limit_wait(self, request: LiveRequest) -> None:
        until = request.waits_since + self._admission.wait_s_max
        self._timers.set((Alarm.WAIT, request.request_id), until)

    def await_decode(self, request: LiveRequest, source: LiveWorker, now: float) -> None:
        """Waits between the legs. Renewals go on until the first token: nobody else's are sure."""
        request.move(Stage.HANDOVER)
        request.note("handover", "KV is ready", now=now, worker_id=source.worker_id)
        self._lines.join(request, Leg.DECODE)
        self._limit_wait(request)
        self._timers.set((Alarm.RENEW, request.request_id), now + _renewal_s(source))

    def renew(self, request: LiveRequest, source: LiveWorker, now: float) -> None:
        """Extends the lease of its handover."""
        self._ledger.tell(RenewHandover, request, source.worker_id)
        self._timers.set((Alarm.RENEW, request.request_id), now + _renewal_s(source))

    def submit(self, found: Dispatch, now: float) -> None:
        """Gives a leg to a worker."""
        request, leg, placement = found.request, found.leg, found.placement
        self._lines.leave(request)
        self._pools.seat(request, leg, placement.worker_id, tokens=found.tokens)
        request.move(Stage.PREFILLING if leg is Leg.PREFILL else Stage.DECODING)
        if leg is not Leg.DECODE:
            request.verdict = Verdict.NEW  # another planner begins anew
        self._timers.cancel((Alarm.WAIT, request.request_id))
        request.note(
            "prefill" if leg is Leg.PREFILL else "decode",
            f"{leg} leg: {placement.reason}",
            now=now,
            worker_id=placement.worker_id,
            costs=placement.costs,
        )
        self._ledger.commands.append(
            SubmitLeg(
                request_id=request.request_id,
                attempt=request.attempt,
                leg=leg,
                worker_id=placement.worker_id,
            )
        )

    def retry(self, request: LiveRequest, reason: Reason, why: str, now: float) -> None:
        """Starts the next attempt, unless that cannot help or text was delivered already."""
        if REASONS[reason].blame is Blame.CALLER:
            self.abandon(request, reason, why, now)
        elif request.tokens_delivered:
            message = f"after {request.tokens_delivered} tokens, {why}"
            self.abandon(request, Reason.STREAM_BROKEN, message, now)
        elif request.failures + 1 >= self._admission.attempts_max:
            message = f"{why} (failure {request.failures + 1}, the last allowed)"
            self.abandon(request, reason, message, now)
        else:
            request.failures += 1
            request.waits_since = now
            self.try_again(request, why, now)

    def recover(self, request: LiveRequest, reason: Reason, why: str, now: float) -> None:
        """Goes on after its worker was lost: with the same handover if that still waits.

        What the lost worker had pulled of it already is computed by the next one.
        """
        source = self._pools.get(request.source_id)
        is_last = request.failures + 1 >= self._admission.attempts_max
        if request.leg is not Leg.DECODE or source is None or is_last:
            self.retry(request, reason, why, now)
            return
        request.failures += 1
        request.waits_since = now
        self._pools.unseat(request)
        request.note("retry", why, now=now)
        self.await_decode(request, source, now)

    def try_again(self, request: LiveRequest, why: str, now: float) -> None:
        """Goes back to the head of its line. A refusal, unlike a failure, does not renew patience,
        so `wait_s_max` bounds how often a full worker is asked."""
        self._withdraw(request, now)
        request.attempt += 1
        request.note("retry", why, now=now)
        request.move(Stage.QUEUED)
        self.enqueue(request, is_first=True)

    def call_off(self, request: LiveRequest, now: float) -> None:
        """Gives up its migration, if one is under way."""
        if migration := self._pools.cancel_move(request):
            request.moved_at = now
            self._ledger.commands.append(
                AbortMigration(
                    request_id=request.request_id,
                    attempt=request.attempt,
                    move=migration.move,
                    source=migration.source,
                    target=migration.target,
                )
            )

    # Ends

    def abandon(
        self, request: LiveRequest, reason: Reason, message: str, now: float, *, ahead: int = 0
    ) -> None:
        """Ends a request badly, wherever it is; `ahead` are those to be served before a retry."""
        self._withdraw(request, now)
        if reason is Reason.CANCELLED:
            stage = Stage.CANCELLED
        elif request.stage is Stage.QUEUED and request.attempt == 1:
            stage = Stage.REJECTED
        else:
            stage = Stage.FAILED
        self.end(request, stage, now, reason=reason, message=message, ahead=ahead)

    def finish(self, request: LiveRequest, finish_reason: FinishReason, now: float) -> None:
        """Ends a request well."""
        self.call_off(request, now)
        self._pools.unseat(request)
        self._pools.let_go(request)
        self.end(request, Stage.FINISHED, now, finish_reason=finish_reason)

    def end(
        self,
        request: LiveRequest,
        stage: Stage,
        now: float,
        *,
        finish_reason: FinishReason | None = None,
        reason: Reason | None = None,
        message: str = "",
        ahead: int = 0,
    ) -> None:
        """Ends a request that holds nothing any more."""
        request.move(stage)
        request.note("finish", message or f"{stage}: {finish_reason or reason}", now=now)
        for kind in (Alarm.WAIT, Alarm.DEADLINE, Alarm.RENEW):
            self._timers.cancel((kind, request.request_id))
        del self._ledger.live[request.request_id]
        endings = self._ledger.endings
        endings.add(request.explanation(), now=now)
        hint_s = endings.retry_after_s(max(ahead, self._lines.prompts))
        is_retryable = reason is not None and REASONS[reason].is_retryable
        self._ledger.commands.append(
            EndRequest(
                request_id=request.request_id,
                stage=stage,
                finish_reason=finish_reason,
                reason=reason,
                message=message,
                retry_after_s=hint_s if is_retryable else None,
            )
        )

    def _withdraw(self, request: LiveRequest, now: float) -> None:
        """Takes a request out of wherever it is and frees what it holds there."""
        self._lines.leave(request)
        self.call_off(request, now)
        leg = request.leg
        if worker_id := self._pools.unseat(request):
            self._ledger.tell(CancelLeg, request, worker_id)
            if leg is Leg.PREFILL:  # it may have finished while the cancel was on its way
                self._ledger.tell(ReleaseHandover, request, worker_id)
        if source_id := self._pools.let_go(request):
            self._ledger.tell(ReleaseHandover, request, source_id)


def _renewal_s(source: LiveWorker) -> float:
    return source.description.handover_lease_s / RENEWALS_PER_LEASE
