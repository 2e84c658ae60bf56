"""The router as its front doors see it: admits calls, and finds live ones by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from readahead.core.cluster import Role
from readahead.core.config import CoreConfig
from readahead.core.endings import ENDED_MAX
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import (
    Explanation,
    ReadingReported,
    RequestArrived,
    RequestCancelled,
)
from readahead.core.request import RequestId
from readahead.router.config import DoorsConfig
from readahead.router.driver import Driver
from readahead.router.frame_gap import FrameHold
from readahead.router.promises import Promises, SessionPromise
from readahead.router.reader import Reader, Readers
from readahead.router.session import LiveSession
from readahead.router.sessions import Call, ServedModel
from readahead.router.traces import RequestTrace
from readahead.runtime.clock import monotonic_s
from readahead.runtime.telemetry import attributes

_FULL_RETRY_S = 1.0
"""Hint to a caller beyond `requests_max`: most answers take longer, a few end each second."""
_DRAINING_RETRY_S = 1.0
"""Hint while this router shuts down: another replica, or its successor, is up within seconds."""


class SessionTable:
    """Opens sessions within the limits, and answers questions about them."""

    def __init__(
        self,
        driver: Driver,
        *,
        core: CoreConfig,
        model: str,
        context_tokens_max: int,
        doors: DoorsConfig,
        now: Callable[[], float] = monotonic_s,
    ) -> None:
        self._driver = driver
        self._model = model
        self._context_tokens_max = context_tokens_max
        self._requests_max = doors.requests_max
        self._frame_gap_s_max = doors.frame_gap_s_max
        self._promises = Promises(
            doors.slo, remote_prefill_tokens_min=core.placement.remote_prefill_tokens_min
        )
        self._hold = FrameHold(gap_s_max=doors.frame_gap_s_max, now=now)
        self._readers = Readers(
            readers_max=doors.requests_max + ENDED_MAX, default_tok_s=core.reading.pace_tok_s
        )
        self._now = now
        self._is_draining = False

    async def open(self, call: Call) -> LiveSession:
        """Admits a call. Returns as soon as it is queued or placed.

        Raises:
            ReadaheadError: INVALID_REQUEST (duplicate id, no such SLO), CONTEXT_TOO_LONG,
                MODEL_NOT_FOUND, OVERLOADED (too many requests), NO_WORKER (draining).
        """
        max_tokens = self._check(call)
        named = self._promises.make(
            call.slo,
            (link.description for link in self._driver.links.values()),
            prompt_tokens=len(call.prompt_token_ids),
        )
        now = self._now()
        call = replace(call, model=self._model)
        trace = RequestTrace(call, max_tokens=max_tokens)
        trace.enter(attributes.SPAN_ADMIT)
        reader = self._readers.open(call, trace=trace, now=now)
        if named is not None:
            reader.promise = SessionPromise(named, arrived_at=now)
        session = LiveSession(
            call,
            max_tokens=max_tokens,
            arrived_at=now,
            trace=trace,
            reader=reader,
            gap_s_max=self._frame_gap_s_max,
            hold=self._hold,
            on_cancel=self._cancel,
        )
        self._driver.sessions[call.request_id] = session
        trace.enter(attributes.SPAN_QUEUE)
        self._driver.handle(
            RequestArrived(
                request_id=call.request_id,
                prompt_tokens=session.prompt_tokens,
                output_tokens_max=max_tokens,
                pace_tok_s=reader.clock.pace_tok_s,
                deadline=None if call.timeout_s is None else now + call.timeout_s,
                first_token_s=None if named is None else named.promise.first_token_s,
            )
        )
        if isinstance(session.end, ReadaheadError):
            raise session.end
        return session

    def cancel(self, request_id: RequestId) -> bool:
        """Ends a live request. False iff the id is unknown."""
        if request_id not in self._driver.sessions:
            return False
        self._cancel(request_id)
        return True

    def report_reading(self, request_id: RequestId, tokens_read: int) -> bool:
        """Takes a reader's progress. False iff the id is unknown.

        A reader goes on after the last token has come, so an ended request is known too.
        """
        reader = self.reader(request_id)
        if reader is not None:
            self._readers.acknowledge(reader, tokens_read, now=self._now())
        if request_id in self._driver.sessions:
            self._driver.handle(ReadingReported(request_id=request_id, tokens_read=tokens_read))
            self._driver.tell_worker_of_reader(request_id)
            return True
        return reader is not None or self._driver.state.explain(request_id) is not None

    def explain(self, request_id: RequestId) -> Explanation | None:
        """What was decided and why, for live and recently ended requests."""
        explanation = self._driver.state.explain(request_id)
        reader = self.reader(request_id)
        if explanation is None or reader is None:
            return explanation
        return replace(
            explanation,
            tokens_read=max(explanation.tokens_read, reader.tokens_read),
            reading=reader.state(self._now()),
            slo=None if reader.promise is None else reader.promise.state(),
        )

    def models(self) -> Sequence[ServedModel]:
        """Empty iff no request can be served now: /health is 503 then.

        Decode workers can do without prefill workers, but not the reverse.
        """
        links = self._driver.links.values()
        able = [link for link in links if link.description.role is Role.DECODE]
        able = [link for link in able if not link.is_draining]
        if not able or self._is_draining or self._driver.broken.is_set():
            return ()
        return (
            ServedModel(
                name=self._model,
                context_tokens_max=self._context(),
                engine=able[0].description.engine,
            ),
        )

    def drain(self) -> None:
        """Admits nothing from here on; what lives goes on."""
        self._is_draining = True

    def close(self) -> None:
        """Lets go of the loop."""
        self._hold.close()

    def reader(self, request_id: RequestId) -> Reader | None:
        """Of a live or recently ended request."""
        session = self._driver.sessions.get(request_id)
        return self._readers.get(request_id) if session is None else session.reader

    def _cancel(self, request_id: RequestId) -> None:
        self._driver.handle(RequestCancelled(request_id=request_id))

    def _context(self) -> int:
        """Longest context that every worker can hold; any of them may get the request."""
        links = self._driver.links.values()
        return (
            min(self._context_tokens_max, *(link.description.context_tokens_max for link in links))
            if links
            else self._context_tokens_max
        )

    def _check(self, call: Call) -> int:
        """Returns the most output tokens of a call that can be taken."""
        if self._is_draining:
            raise ReadaheadError(
                Reason.NO_WORKER, "The router is shutting down.", retry_after_s=_DRAINING_RETRY_S
            )
        if self._driver.broken.is_set():
            raise ReadaheadError(Reason.BUG, "The router has failed.")
        if call.model not in ("", self._model):
            raise ReadaheadError(
                Reason.MODEL_NOT_FOUND,
                f"The model {call.model!r} is not served here; {self._model!r} is.",
                parameter="model",
            )
        if call.request_id in self._driver.sessions:
            raise ReadaheadError(
                Reason.INVALID_REQUEST,
                f"A request with the id {call.request_id} is running.",
                parameter="request_id",
            )
        live, limit = len(self._driver.sessions), self._requests_max
        if live >= limit:
            raise ReadaheadError(
                Reason.OVERLOADED,
                f"{live} requests are running or waiting.",
                retry_after_s=_FULL_RETRY_S,
                metadata={"requests_max": str(limit)},
            )
        return self._output_tokens_max(call)

    def _output_tokens_max(self, call: Call) -> int:
        context, prompt = self._context(), len(call.prompt_token_ids)
        facts = {"context_tokens_max": str(context), "prompt_tokens": str(prompt)}
        if prompt + 1 > context:
            raise ReadaheadError(
                Reason.CONTEXT_TOO_LONG,
                f"The prompt has {prompt} tokens and the model's context holds {context}, "
                "of which one is for the output.",
                parameter="prompt",
                metadata=facts,
            )
        asked = call.sampling.max_tokens
        if asked is not None and prompt + asked > context:
            raise ReadaheadError(
                Reason.CONTEXT_TOO_LONG,
                f"The prompt has {prompt} tokens and max_tokens is {asked}; "
                f"the model's context holds {context}.",
                parameter="max_tokens",
                metadata=facts,
            )
        return context - prompt if asked is None else asked
