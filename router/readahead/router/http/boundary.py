"""The HTTP boundary: every request gets an id, every error leaves as an error object."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import RequestId
from readahead.router.checks import is_request_id, new_request_id
from readahead.router.http.errors import (
    ClientGone,
    error_body,
    error_headers,
    status_of,
)
from readahead.router.http.frames import error_frame

_log = structlog.get_logger()


class Boundary:
    """ASGI middleware. Puts the request's id into the scope, and on the answer whatever happens.

    It is the one place where HTTP turns exceptions into answers: a JSON body before the answer
    has started, an error frame in a stream that has.
    """

    def __init__(self, app: ASGIApp, *, stall_s_max: float) -> None:
        self._app = app
        self._stall_s_max = stall_s_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["readahead.request_id"] = request_id
        answer = _Answer(send, request_id)
        failure: ReadaheadError | None = None
        try:
            await self._app(scope, receive, answer.send)
        except ClientGone:
            pass
        except ReadaheadError as error:
            failure = error
        except Exception:
            _log.exception("http_request_failed", request_id=request_id, path=scope["path"])
            failure = ReadaheadError(Reason.BUG, "Something is wrong on our side.")
        if failure is not None:
            await self._end_badly(answer, failure)

    async def _end_badly(self, answer: _Answer, failure: ReadaheadError) -> None:
        with suppress(TimeoutError):  # it takes nothing; the server closes the connection
            async with asyncio.timeout(self._stall_s_max):
                await answer.end_badly(failure)


class _Answer:
    """What has been sent so far, so that an error takes the right form."""

    def __init__(self, send: Send, request_id: RequestId) -> None:
        self._send = send
        self._id_header = (b"x-request-id", request_id.encode())
        self._is_started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_started = True
            message["headers"] = [*message.get("headers", ()), self._id_header]
        await self._send(message)

    async def end_badly(self, error: ReadaheadError) -> None:
        if self._is_started:  # only streams fail after their start
            frame = error_frame(error)
            await self._send({"type": "http.response.body", "body": frame, "more_body": False})
            return
        body = error_body(error)
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *error_headers(error),
        ]
        status = status_of(error)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _request_id(scope: Scope) -> RequestId:
    """The client's own id where it is usable. A proxy's odd one is no reason to refuse."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            text = value.decode("latin-1")
            return RequestId(text) if is_request_id(text) else new_request_id()
    return new_request_id()
