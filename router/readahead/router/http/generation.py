"""POST /v1/completions and /v1/chat/completions: from a body to a session to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from readahead.core.errors import ReadaheadError, Reason
from readahead.router import checks
from readahead.router.config import DoorsConfig
from readahead.router.http.bodies import read_json
from readahead.router.http.frames import Heading, Shape
from readahead.router.http.presence import while_present
from readahead.router.http.questions import Question
from readahead.router.prompts import Prompts
from readahead.router.sessions import Call, Chunk, Session, Sessions
from readahead.runtime.clock import wall_ns

TIMEOUT_HEADER = "x-request-timeout-s"
TRACE_HEADERS = ("traceparent", "tracestate")

_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold frames back
]

ReadBody = Callable[[bytes, Prompts], Awaitable[tuple[Question, Sequence[int]]]]


class Gate:
    """Bounds the requests that are alive in this door, those whose body is coming in included."""

    def __init__(self, requests_max: int) -> None:
        self._requests_max = requests_max
        self._requests = 0

    @contextmanager
    def pass_through(self) -> Iterator[None]:
        """Holds a place.

        Raises:
            ReadaheadError: OVERLOADED; there is none.
        """
        if self._requests >= self._requests_max:
            raise ReadaheadError(
                Reason.OVERLOADED,
                "Too many requests are alive.",
                retry_after_s=1.0,
                metadata={"requests_max": str(self._requests_max)},
            )
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1


class Generation:
    """An ASGI endpoint that answers one form of generation request."""

    def __init__(
        self,
        sessions: Sessions,
        prompts: Prompts,
        doors: DoorsConfig,
        *,
        gate: Gate,
        read_body: ReadBody,
        shape: Callable[[Heading], Shape],
    ) -> None:
        self._sessions = sessions
        self._prompts = prompts
        self._doors = doors
        self._gate = gate
        self._read_body = read_body
        self._shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._gate.pass_through():
            timeout_s = _timeout_s(scope)
            body = await read_json(scope, receive, send, doors=self._doors)

            async def answer(outlet: Send) -> None:
                await self._answer(scope, body, timeout_s, outlet)

            await while_present(
                answer, scope, receive, send, stall_s_max=self._doors.client_stall_s_max
            )

    async def _answer(self, scope: Scope, body: bytes, timeout_s: float | None, send: Send) -> None:
        question, token_ids = await self._read_body(body, self._prompts)
        call = self._call(scope, question, token_ids, timeout_s)
        session = await self._sessions.open(call)
        shape = self._shape(
            Heading(
                request_id=call.request_id,
                model=call.model,
                created_s=wall_ns() // 10**9,
                has_usage=question.has_usage,
                running_prompt_tokens=(
                    session.prompt_tokens if question.has_running_usage else None
                ),
                has_reading=question.has_reading,
            )
        )
        engine = self._engine_header(call.model)
        try:
            if question.is_stream:
                await _stream(session, shape, send, engine)
            else:
                await _collect(session, shape, send, engine)
        finally:
            session.cancel()

    def _call(
        self,
        scope: Scope,
        question: Question,
        token_ids: Sequence[int],
        timeout_s: float | None,
    ) -> Call:
        headers = Headers(scope=scope)
        return Call(
            request_id=scope["readahead.request_id"],
            model=question.model or self._prompts.name,
            prompt_token_ids=token_ids,
            sampling=question.sampling,
            pace_tok_s=question.pace_tok_s,
            user_id=question.user_id,
            slo=question.slo,
            scenario=question.scenario,
            timeout_s=timeout_s,
            trace_headers={name: headers[name] for name in TRACE_HEADERS if name in headers},
            is_streamed=question.is_stream,
            door="http",
        )

    def _engine_header(self, model: str) -> list[tuple[bytes, bytes]]:
        """Says whether an engine or its stand-in answers."""
        for served in self._sessions.models():
            if served.name == model:
                return [(b"x-readahead-engine", served.engine.encode())]
        return []


async def _stream(
    session: Session, shape: Shape, send: Send, more_headers: list[tuple[bytes, bytes]]
) -> None:
    # Nothing is sent before there is news: an error until then has a status of its own.
    chunk = await session.next_chunk()
    headers = [*_SSE, *more_headers, *_verdict_header(chunk)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    frames = shape.opening()
    output_tokens = 0
    while chunk.finish is None:
        output_tokens += len(chunk.token_ids)
        if chunk.text:
            frames += shape.delta(chunk.text, output_tokens)
        if frames:
            await send({"type": "http.response.body", "body": frames, "more_body": True})
            frames = b""
        chunk = await session.next_chunk()
    if chunk.text:
        frames += shape.delta(chunk.text, output_tokens + len(chunk.token_ids))
    frames += shape.closing(chunk.finish)
    await send({"type": "http.response.body", "body": frames, "more_body": False})


async def _collect(
    session: Session, shape: Shape, send: Send, more_headers: list[tuple[bytes, bytes]]
) -> None:
    texts: list[str] = []
    chunk = await session.next_chunk()
    while chunk.finish is None:
        texts.append(chunk.text)
        chunk = await session.next_chunk()
    texts.append(chunk.text)
    body = shape.whole("".join(texts), chunk.finish)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *more_headers,
        *_verdict_header(chunk),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _verdict_header(chunk: Chunk) -> list[tuple[bytes, bytes]]:
    """Whether its promise is kept before others' or it gets what they leave, where that is said."""
    told = chunk.verdict.told
    return [(b"x-readahead-verdict", told.encode())] if told else []


def _timeout_s(scope: Scope) -> float | None:
    text = Headers(scope=scope).get(TIMEOUT_HEADER)
    if text is None:
        return None
    try:
        timeout_s = float(text)
    except ValueError as error:
        raise checks.invalid(
            f"{TIMEOUT_HEADER} must be a number of seconds.", parameter=TIMEOUT_HEADER
        ) from error
    return checks.timeout(timeout_s, parameter=TIMEOUT_HEADER)
