"""The HTTP door as an ASGI application."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from readahead.router.config import DoorsConfig
from readahead.router.http.boundary import Boundary
from readahead.router.http.chat import read_chat
from readahead.router.http.completions import read_completion
from readahead.router.http.errors import HttpRefusal
from readahead.router.http.frames import ChatShape, TextShape
from readahead.router.http.generation import Gate, Generation
from readahead.router.http.inspection import Inspection, Reading
from readahead.router.prompts import Prompts
from readahead.router.sessions import Sessions


def application(sessions: Sessions, prompts: Prompts, doors: DoorsConfig) -> Starlette:
    """OpenAI's interface, and ours beside it, on the router's sessions."""
    app = Starlette(
        routes=_routes(sessions, prompts, doors),
        middleware=[Middleware(Boundary, stall_s_max=doors.client_stall_s_max)],
        exception_handlers={HTTPException: _translate},
    )
    app.router.redirect_slashes = False
    return app


def _routes(sessions: Sessions, prompts: Prompts, doors: DoorsConfig) -> list[Route]:
    gate = Gate(doors.requests_max)
    completions = Generation(
        sessions, prompts, doors, gate=gate, read_body=read_completion, shape=TextShape
    )
    chat = Generation(sessions, prompts, doors, gate=gate, read_body=read_chat, shape=ChatShape)
    inspection = Inspection(sessions)
    requests = "/v1/readahead/requests/{request_id}"
    return [
        Route("/health", inspection.health),
        Route("/metrics", inspection.metrics),
        Route("/v1/models", inspection.models),
        Route("/v1/models/{name:path}", inspection.model),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/v1/chat/completions", chat, methods=["POST"]),
        Route(requests, inspection.explain),
        Route(f"{requests}/reading", Reading(sessions, doors), methods=["POST"]),
    ]


async def _translate(request: Request, error: Exception) -> Response:
    """Starlette's own refusals, on their way to the boundary."""
    assert isinstance(error, HTTPException)
    method, path = request.method, request.url.path[:256]
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        raise HttpRefusal(405, f"{method} is not allowed on {path}; use {allow}.", allow=allow)
    if error.status_code == 404:
        raise HttpRefusal(404, f"There is nothing at {method} {path}.")
    raise HttpRefusal(error.status_code, error.detail)
