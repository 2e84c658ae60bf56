"""What a router tells of itself and of its requests: health, metrics, models, decisions."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Decision, Explanation
from readahead.core.request import RequestId
from readahead.router import checks
from readahead.router.config import DoorsConfig
from readahead.router.http.bodies import read_json
from readahead.router.http.frames import promise_fields, reading_fields
from readahead.router.http.questions import Strict, parse
from readahead.router.sessions import ServedModel, Sessions
from readahead.runtime.clock import wall_ns
from readahead.runtime.telemetry.exposition import render

_ID_PREFIXES = ("chatcmpl-", "cmpl-")


class Inspection:
    """Endpoints that read."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._created_s = wall_ns() // 10**9

    async def health(self, request: Request) -> Response:
        """200 once a request can be served."""
        models = [model.name for model in self._sessions.models()]
        if models:
            return JSONResponse({"status": "ok", "models": models})
        return JSONResponse(
            {
                "status": "unavailable",
                "missing": ["workers"],
                "message": "No model can be served yet: the workers it needs have not joined.",
            },
            status_code=503,
        )

    async def metrics(self, request: Request) -> Response:
        """Prometheus metrics of this process."""
        body, content_type = render()
        return Response(body, headers={"content-type": content_type})

    async def models(self, request: Request) -> Response:
        """What can be asked for."""
        data = [self._model(model) for model in self._sessions.models()]
        return JSONResponse({"object": "list", "data": data})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["name"]
        for model in self._sessions.models():
            if model.name == name:
                return JSONResponse(self._model(model))
        raise ReadaheadError(
            Reason.MODEL_NOT_FOUND, f"The model '{name[:256]}' does not exist.", parameter="model"
        )

    async def explain(self, request: Request) -> Response:
        """What was decided for a request."""
        text = request.path_params["request_id"]
        explanation = self._sessions.explain(RequestId(text))
        if explanation is None:
            explanation = self._sessions.explain(bare_id(text))
        if explanation is None:
            raise unknown_request(text)
        return JSONResponse(_explanation(explanation))

    def _model(self, model: ServedModel) -> dict[str, Any]:
        return {
            "id": model.name,
            "object": "model",
            "created": self._created_s,
            "owned_by": "readahead",
            "max_model_len": model.context_tokens_max,
            "readahead": {"engine": model.engine},
        }


class ReadingBody(Strict):
    """POST /v1/readahead/requests/{id}/reading."""

    tokens_read: int


class Reading:
    """An ASGI endpoint that takes a reader's progress."""

    def __init__(self, sessions: Sessions, doors: DoorsConfig) -> None:
        self._sessions = sessions
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_json(scope, receive, send, doors=self._doors)
        tokens = checks.tokens_read(parse(ReadingBody, body).tokens_read)
        text = scope["path_params"]["request_id"]
        if not (
            self._sessions.report_reading(RequestId(text), tokens)
            or self._sessions.report_reading(bare_id(text), tokens)
        ):
            raise unknown_request(text)
        await Response(status_code=204)(scope, receive, send)


def bare_id(text: str) -> RequestId:
    """A request's id, from it or from the id of its completion."""
    for prefix in _ID_PREFIXES:
        text = text.removeprefix(prefix)
    return RequestId(text)


def unknown_request(text: str) -> ReadaheadError:
    """The router does not know the id, or not any more."""
    return ReadaheadError(
        Reason.REQUEST_NOT_FOUND,
        f"The request '{text[:256]}' is not known; ended requests are kept for a while only.",
        parameter="request_id",
    )


def _explanation(explanation: Explanation) -> dict[str, Any]:
    return {
        "request_id": explanation.request_id,
        "stage": explanation.stage.value,
        "tokens_delivered": explanation.tokens_delivered,
        "tokens_read": explanation.tokens_read,
        **({} if explanation.reading is None else reading_fields(explanation.reading)),
        **promise_fields(explanation.slo, explanation.verdict),
        "decisions": [
            _decision(decision, explanation.arrived_at) for decision in explanation.decisions
        ],
    }


def _decision(decision: Decision, arrived_at: float) -> dict[str, Any]:
    return {
        "at_s": round(decision.at - arrived_at, 6),
        "kind": decision.kind,
        "worker_id": decision.worker_id,
        "reason": decision.reason,
        "costs": dict(decision.costs),
        "slack_s": None if decision.slack_s is None else round(decision.slack_s, 6),
    }
