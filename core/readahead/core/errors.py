"""Every way a request can go wrong: a closed set, each with its blame and its retry rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why something did not happen. The set is closed; clients switch on it."""

    INVALID_REQUEST = "INVALID_REQUEST"
    CONTEXT_TOO_LONG = "CONTEXT_TOO_LONG"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    REQUEST_NOT_FOUND = "REQUEST_NOT_FOUND"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    OVERLOADED = "OVERLOADED"
    NO_WORKER = "NO_WORKER"
    WORKER_LOST = "WORKER_LOST"
    STREAM_BROKEN = "STREAM_BROKEN"
    KV_EXPIRED = "KV_EXPIRED"
    STALE_INCARNATION = "STALE_INCARNATION"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED = "CANCELLED"
    ENGINE_FAILED = "ENGINE_FAILED"
    UNSUPPORTED = "UNSUPPORTED"
    BUG = "BUG"


class Blame(StrEnum):
    """Who can do something about it."""

    CALLER = "caller"
    SYSTEM = "system"
    WORKER = "worker"
    US = "us"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonSpec:
    """What a reason means to a caller."""

    blame: Blame
    grpc_status: str
    """Name of the grpc.StatusCode."""
    http_status: int
    is_retryable: bool
    """The same request may succeed if sent again, after the hinted delay where one is given."""
    openai_type: str
    """`error.type` of OpenAI's error object."""


def _caller(grpc_status: str, http_status: int, openai_type: str) -> ReasonSpec:
    return ReasonSpec(
        blame=Blame.CALLER,
        grpc_status=grpc_status,
        http_status=http_status,
        is_retryable=False,
        openai_type=openai_type,
    )


def _system(grpc_status: str, http_status: int, *, is_retryable: bool) -> ReasonSpec:
    return ReasonSpec(
        blame=Blame.SYSTEM,
        grpc_status=grpc_status,
        http_status=http_status,
        is_retryable=is_retryable,
        openai_type="rate_limit_error" if http_status == 429 else "server_error",
    )


REASONS: Mapping[Reason, ReasonSpec] = {
    Reason.INVALID_REQUEST: _caller("INVALID_ARGUMENT", 400, "invalid_request_error"),
    Reason.CONTEXT_TOO_LONG: _caller("INVALID_ARGUMENT", 400, "invalid_request_error"),
    Reason.UNAUTHENTICATED: _caller("UNAUTHENTICATED", 401, "authentication_error"),
    Reason.FORBIDDEN: _caller("PERMISSION_DENIED", 403, "permission_error"),
    Reason.MODEL_NOT_FOUND: _caller("NOT_FOUND", 404, "invalid_request_error"),
    Reason.REQUEST_NOT_FOUND: _caller("NOT_FOUND", 404, "invalid_request_error"),
    Reason.QUOTA_EXCEEDED: ReasonSpec(
        blame=Blame.CALLER,
        grpc_status="RESOURCE_EXHAUSTED",
        http_status=429,
        is_retryable=True,
        openai_type="rate_limit_error",
    ),
    Reason.OVERLOADED: _system("RESOURCE_EXHAUSTED", 429, is_retryable=True),
    Reason.NO_WORKER: _system("UNAVAILABLE", 503, is_retryable=True),
    Reason.WORKER_LOST: _system("UNAVAILABLE", 503, is_retryable=True),
    Reason.STREAM_BROKEN: _system("ABORTED", 502, is_retryable=False),
    Reason.KV_EXPIRED: _system("ABORTED", 503, is_retryable=True),
    Reason.STALE_INCARNATION: _system("ABORTED", 503, is_retryable=True),
    Reason.DEADLINE_EXCEEDED: _caller("DEADLINE_EXCEEDED", 504, "timeout_error"),
    Reason.CANCELLED: _caller("CANCELLED", 499, "invalid_request_error"),
    Reason.ENGINE_FAILED: ReasonSpec(
        blame=Blame.WORKER,
        grpc_status="INTERNAL",
        http_status=500,
        is_retryable=False,
        openai_type="server_error",
    ),
    Reason.UNSUPPORTED: _caller("UNIMPLEMENTED", 501, "invalid_request_error"),
    Reason.BUG: ReasonSpec(
        blame=Blame.US,
        grpc_status="INTERNAL",
        http_status=500,
        is_retryable=False,
        openai_type="server_error",
    ),
}


class ReadaheadError(Exception):
    """The one exception that crosses component boundaries.

    Attributes:
        reason: member of the closed set.
        message: one sentence for the caller, without secrets or prompt text.
        parameter: name of the offending request field, where there is one.
        retry_after_s: seconds after which a retry may succeed, where that can be told.
        metadata: facts for programs; keys carry units, as in `queue_requests_max`.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        parameter: str | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.parameter = parameter
        self.retry_after_s = retry_after_s
        self.metadata: Mapping[str, str] = metadata or {}
