"""The legs that run on this worker: one task each, from submission to the last news."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import cast

import structlog
from opentelemetry.trace import Span, StatusCode

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Leg
from readahead.runtime.telemetry import attributes, traces
from readahead.services.engine.engine import Engine, LegEnd, LegKey, LegOutput, LegRequest
from readahead.services.worker import metrics
from readahead.services.worker.arrivals import Reservations
from readahead.services.worker.departures import Departures
from readahead.services.worker.identity import WorkerIdentity
from readahead.services.worker.running_leg import RunningLeg
from readahead.services.worker.steps import StepStream

REMEMBERED_MAX = 8192
"""Ended legs whose names are kept, so that a repeated or overtaken Submit does not run one again.
A worker that ends 800 legs a second remembers ten seconds, twice the longest unary deadline."""

VERDICTS_S = 0.05
"""How often it is looked at what the planner has decided about those who wait: below what a person
takes for a pause, and next to nothing where it has decided nothing."""

_log = structlog.get_logger()


class Legs:
    """Runs legs on the engine and puts their news on their router's stream."""

    def __init__(
        self,
        engine: Engine,
        identity: WorkerIdentity,
        *,
        tasks: asyncio.TaskGroup,
        on_engine_failed: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._tasks = tasks
        self._on_engine_failed = on_engine_failed
        self._running: dict[LegKey, RunningLeg] = {}
        self._over: OrderedDict[LegKey, Leg | None] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self.departures = Departures(engine, self._running.get, tasks=tasks)
        self.reservations = Reservations(engine)

    def __len__(self) -> int:
        return len(self._running)

    def is_known(self, request: LegRequest) -> bool:
        """Whether this very leg runs here or has ended here.

        Raises:
            ReadaheadError: CANCELLED; the attempt was cancelled. INVALID_REQUEST; another leg of
                the same attempt runs here.
        """
        running = self._running.get(request.key)
        if running is not None:
            if running.request.leg is not request.leg:
                raise ReadaheadError(
                    Reason.INVALID_REQUEST,
                    f"the {running.request.leg} leg of this attempt is still running here",
                    parameter="leg",
                )
            return True
        if request.key not in self._over:
            return False
        leg = self._over[request.key]
        if leg is None:
            raise ReadaheadError(Reason.CANCELLED, "this attempt was cancelled")
        return leg is request.leg

    def check_not_over(self, key: LegKey) -> None:
        """Whether a leg of this name may still come.

        Raises:
            ReadaheadError: CANCELLED; it was cancelled. INVALID_REQUEST; it is here, or has been.
        """
        if key in self._running or self._over.get(key) is not None:
            raise ReadaheadError(Reason.INVALID_REQUEST, "a leg of this attempt has come already")
        if key in self._over:
            raise ReadaheadError(Reason.CANCELLED, "this attempt was cancelled")

    def start(self, request: LegRequest, stream: StepStream, *, headers: Mapping[str, str]) -> None:
        """Gives a leg to the engine."""
        leg = RunningLeg(request, stream, self._span(request, headers))
        self._running[request.key] = leg
        self.reservations.end(request.key)
        self._idle.clear()
        if request.output_token_ids:
            metrics.ARRIVALS.inc()
        else:
            metrics.PROMPT_TOKENS.inc(len(request.prompt_token_ids))
        leg.task = self._tasks.create_task(self._run(leg))
        leg.task.add_done_callback(lambda _: self._forget(leg))

    def cancel(self, key: LegKey) -> None:
        """Ends a leg; an attempt that is not here yet will be refused."""
        self.reservations.end(key)
        leg = self._running.get(key)
        if leg is None:
            self._remember(key, None)
        else:
            self._stop(leg, LegEnd(error_reason=Reason.CANCELLED))

    def cancel_stream(self, stream: StepStream) -> None:
        """Ends all legs whose news went to this stream."""
        for leg in list(self._running.values()):
            if leg.stream is stream:
                self._stop(leg, LegEnd(error_reason=Reason.CANCELLED))

    def fail_all(self, error: ReadaheadError) -> None:
        """Ends all legs with an error."""
        for leg in list(self._running.values()):
            self._stop(leg, LegEnd(error_reason=error.reason, error_message=error.message))

    def tell_verdicts(self) -> None:
        """Tells routers what the planner has decided since the last call."""
        for key, verdict in self._engine.take_verdicts():
            leg = self._running.get(key)
            if leg is not None and leg.end is None:
                metrics.VERDICTS.labels(verdict.value).inc()
                leg.stream.put(key, LegOutput(verdict=verdict))

    async def watch_verdicts(self) -> None:
        """Tells them of those who wait, too, within a moment. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(VERDICTS_S)
            if self._running:
                self.tell_verdicts()

    async def wait_idle(self) -> None:
        """Returns once no leg runs."""
        await self._idle.wait()

    def _stop(self, leg: RunningLeg, end: LegEnd) -> None:
        if leg.end is None:
            leg.end = end
            leg.stream.put(leg.request.key, LegOutput(end=end))
            leg.told()
        assert leg.task is not None
        leg.task.cancel()  # also a leg that has said its end: closing its output takes no time

    async def _run(self, leg: RunningLeg) -> None:
        try:
            # The protocol promises that closing early aborts, which is what generators do.
            outputs = cast("AsyncGenerator[LegOutput, None]", self._engine.run(leg.request))
            async with aclosing(outputs):
                async for output in outputs:
                    self._tell(leg, output)
        except ReadaheadError as error:
            self._give_up(leg, LegEnd(error_reason=error.reason, error_message=error.message))
        except Exception as error:  # a leg is an effect's boundary: it must not end the others
            _log.error(
                "leg_failed",
                request_id=leg.request.key[0],
                attempt=leg.request.key[1],
                exc_info=error,
                action="report this as a bug of Readahead",
            )
            self._give_up(leg, LegEnd(error_reason=Reason.BUG, error_message=repr(error)))
        else:
            self._give_up(
                leg, LegEnd(error_reason=Reason.BUG, error_message="the engine said no end")
            )

    def _tell(self, leg: RunningLeg, output: LegOutput) -> None:
        if leg.end is not None:  # cancelled, and the task has yet to notice
            return
        self.tell_verdicts()  # before the news that it may be the reason of
        leg.output_token_ids.extend(output.token_ids)
        if output.wait_s is not None and output.first_token_s is not None:
            metrics.WAIT_SECONDS.labels(leg.request.leg).observe(output.wait_s)
            metrics.FIRST_TOKEN_SECONDS.labels(leg.request.leg).observe(output.first_token_s)
        leg.end = output.end
        leg.stream.put(leg.request.key, output)
        leg.told()
        if leg.end is not None and leg.end.error_reason is Reason.ENGINE_FAILED:
            self._on_engine_failed()

    def _give_up(self, leg: RunningLeg, end: LegEnd) -> None:
        if leg.end is None:
            self._tell(leg, LegOutput(end=end))

    def _forget(self, leg: RunningLeg) -> None:
        """The task is over, on whichever way."""
        if leg.end is None:  # cancelled from above, before or after its first step
            self._tell(leg, LegOutput(end=LegEnd(error_reason=Reason.CANCELLED)))
        assert leg.end is not None
        del self._running[leg.request.key]
        if leg.guard is not None:
            leg.guard.cancel()
        is_cancelled = leg.end.error_reason is Reason.CANCELLED
        self._remember(leg.request.key, None if is_cancelled else leg.request.leg)
        outcome = leg.end.finish_reason or leg.end.error_reason or Reason.BUG
        metrics.LEGS.labels(leg.request.leg, outcome.lower()).inc()
        self._end_span(leg, leg.end)
        if not self._running:
            self._idle.set()

    def _remember(self, key: LegKey, leg: Leg | None) -> None:
        """Keeps the name of an ended leg; None for a cancelled attempt."""
        self._over[key] = leg
        self._over.move_to_end(key)
        if len(self._over) > REMEMBERED_MAX:
            self._over.popitem(last=False)

    def _span(self, request: LegRequest, headers: Mapping[str, str]) -> Span:
        is_prefill = request.leg is Leg.PREFILL
        request_id, attempt = request.key
        return traces.tracer().start_span(
            attributes.SPAN_WORKER_PREFILL if is_prefill else attributes.SPAN_WORKER_DECODE,
            context=traces.context_from(headers),
            attributes={
                attributes.REQUEST_MODEL: self._engine.description.model,
                attributes.REQUEST_MAX_TOKENS: request.sampling.max_tokens,
                attributes.INPUT_TOKENS: len(request.prompt_token_ids),
                attributes.REQUEST_ID: request_id,
                attributes.ATTEMPT: attempt,
                attributes.WORKER_ID: self._identity.worker_id,
            },
        )

    def _end_span(self, leg: RunningLeg, end: LegEnd) -> None:
        made = len(leg.output_token_ids) - len(leg.request.output_token_ids)
        leg.span.set_attribute(attributes.OUTPUT_TOKENS, made)
        if end.finish_reason is not None:
            leg.span.set_attribute(attributes.FINISH_REASONS, (end.finish_reason.value,))
        elif end.error_reason is not None:
            leg.span.set_attribute(attributes.ERROR_REASON, end.error_reason.value)
            leg.span.set_status(StatusCode.ERROR, end.error_message)
        leg.span.end()
