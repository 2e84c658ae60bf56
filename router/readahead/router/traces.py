"""The spans of one request: `generate`, and one child per stage, one stage at a time."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from readahead.core.errors import ReadaheadError
from readahead.core.messages import ReadingState
from readahead.core.request import Leg
from readahead.router.sessions import Call, Finish
from readahead.runtime.clock import wall_ns
from readahead.runtime.telemetry import attributes, traces

EVENTS_MAX = 64
"""Events of one request's waits; later ones are in the count of stalls alone."""


class RequestTrace:
    """Spans from a request's arrival to its end. Each is ended exactly once.

    A request that is not recorded makes one inert span, which passes the caller's trace on.
    """

    __slots__ = ("_events", "_root", "_stage")

    def __init__(self, call: Call, *, max_tokens: int) -> None:
        self._root: Span = traces.tracer().start_span(
            attributes.SPAN_GENERATE,
            context=traces.context_from(call.trace_headers),
            kind=SpanKind.SERVER,
        )
        self._stage: Span | None = None
        self._events = 0
        if self._root.is_recording():
            self._root.set_attributes(
                {
                    attributes.REQUEST_MODEL: call.model,
                    attributes.REQUEST_MAX_TOKENS: max_tokens,
                    attributes.INPUT_TOKENS: len(call.prompt_token_ids),
                    attributes.REQUEST_ID: call.request_id,
                }
            )

    def enter(self, name: str, *, attempt: int = 0, worker_id: str = "") -> None:
        """Ends the stage that is open, well, and opens the next."""
        if not self._root.is_recording():
            return
        self.leave()
        span = traces.tracer().start_span(name, context=set_span_in_context(self._root))
        if attempt:
            span.set_attribute(attributes.ATTEMPT, attempt)
        if worker_id:
            span.set_attribute(attributes.WORKER_ID, worker_id)
        self._stage = span

    def leave(self, failure: str = "") -> None:
        """Ends the stage that is open, if one is; `failure` says what went wrong."""
        stage, self._stage = self._stage, None
        if stage is None:
            return
        if failure:
            stage.set_status(Status(StatusCode.ERROR, failure))
        stage.end()

    def interrupt(self, failure: str, *, leg: Leg | None) -> None:
        """The open leg has failed; the request waits for its next one."""
        self.leave(failure)
        self.enter(attributes.SPAN_HANDOVER if leg is Leg.DECODE else attributes.SPAN_QUEUE)

    def headers(self) -> Mapping[str, str]:
        """W3C headers that make a worker's span a child of the open stage."""
        return traces.headers_from(self._stage or self._root)

    def stalled(self, stall_s: float, *, is_resumed: bool) -> None:
        """The reader has waited until now; then he got text, or the request ended."""
        if not self._root.is_recording() or self._events >= EVENTS_MAX:
            return
        now_ns = wall_ns()
        self._root.add_event(attributes.EVENT_WENT_IDLE, timestamp=now_ns - round(stall_s * 1e9))
        if is_resumed:
            about = {attributes.IDLE_S: stall_s}
            self._root.add_event(attributes.EVENT_RESUMED, about, timestamp=now_ns)
        self._events += 2

    def moving(self, stage: str, *, target: str) -> None:
        """The leg is on the move to another worker, and has come so far."""
        if self._stage is None or self._events >= EVENTS_MAX:
            return
        about = {attributes.MOVE_STAGE: stage, attributes.MOVE_TARGET: target}
        self._stage.add_event(attributes.EVENT_MOVE, about)
        self._events += 1

    def end(
        self, end: Finish | ReadaheadError, *, output_tokens: int, reading: ReadingState
    ) -> None:
        """Ends all spans."""
        root = self._root
        if not root.is_recording():
            return
        root.set_attributes(
            {
                attributes.OUTPUT_TOKENS: output_tokens,
                attributes.IDLE_S: reading.idle_s,
                attributes.UNREAD_TOKENS: reading.unread_tokens,
                attributes.STALLS: reading.stalls,
                attributes.PACE_TOK_S: reading.pace_tok_s,
                attributes.PACE_SOURCE: reading.pace_source.value,
            }
        )
        if isinstance(end, Finish):
            self.leave()
            root.set_attribute(attributes.FINISH_REASONS, (end.reason.value,))
        else:
            self.leave(end.message or end.reason.value)
            root.set_attribute(attributes.ERROR_REASON, end.reason.value)
            root.set_status(Status(StatusCode.ERROR, end.message or end.reason.value))
        root.end()
