"""What can go wrong, as one tree: catch `ReadaheadClientError`, or a branch of it."""

from __future__ import annotations

from collections.abc import Mapping


class ReadaheadClientError(Exception):
    """A request, or a call about one, did not succeed.

    Attributes:
        reason: member of the closed set in docs/reference/errors.md, or "UNREACHABLE" when the
            server could not be talked to at all.
        message: one sentence.
        request_id: the request's id, as the server knows it where it does.
        parameter: name of the offending field, where there is one.
        retry_after_s: seconds after which another try may succeed, where the server said so.
        metadata: facts for programs; keys carry units.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        request_id: str = "",
        parameter: str | None = None,
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        suffix = f" (request {request_id})" if request_id else ""
        super().__init__(f"{reason}: {message}{suffix}")
        self.reason = reason
        self.message = message
        self.request_id = request_id
        self.parameter = parameter
        self.retry_after_s = retry_after_s
        self.metadata: Mapping[str, str] = metadata or {}

    @property
    def is_retryable(self) -> bool:
        """The same request may succeed if sent again."""
        return self.reason in RETRYABLE_REASONS


class InvalidRequestError(ReadaheadClientError):
    """The request itself is wrong; sending it again cannot help."""


class AccessError(ReadaheadClientError):
    """The caller is not known, or may not do this."""


class NotFoundError(ReadaheadClientError):
    """No such model, or no such request."""


class OverloadedError(ReadaheadClientError):
    """Refused before any work was done; see `retry_after_s`."""


class UnavailableError(ReadaheadClientError):
    """Nobody could serve the request: unreachable, no worker, or a worker lost early."""


class DeadlineError(ReadaheadClientError):
    """The caller's time limit has passed."""


class CancelledError_(ReadaheadClientError):
    """Someone else ended the request: another connection, or the client's `close()`."""


class BrokenStreamError(ReadaheadClientError):
    """The answer broke off after it had begun; `metadata["tokens_delivered"]` says where."""


class ServerError(ReadaheadClientError):
    """The server failed in a way that is not the caller's doing."""


UNREACHABLE = "UNREACHABLE"

ERROR_TYPES: Mapping[str, type[ReadaheadClientError]] = {
    "INVALID_REQUEST": InvalidRequestError,
    "CONTEXT_TOO_LONG": InvalidRequestError,
    "UNSUPPORTED": InvalidRequestError,
    "UNAUTHENTICATED": AccessError,
    "FORBIDDEN": AccessError,
    "MODEL_NOT_FOUND": NotFoundError,
    "REQUEST_NOT_FOUND": NotFoundError,
    "QUOTA_EXCEEDED": OverloadedError,
    "OVERLOADED": OverloadedError,
    "NO_WORKER": UnavailableError,
    "WORKER_LOST": UnavailableError,
    "KV_EXPIRED": UnavailableError,
    "STALE_INCARNATION": UnavailableError,
    UNREACHABLE: UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "CANCELLED": CancelledError_,
    "STREAM_BROKEN": BrokenStreamError,
    "ENGINE_FAILED": ServerError,
    "BUG": ServerError,
}
"""Reasons of a newer server that are missing here become a `ServerError`."""

RETRYABLE_REASONS = frozenset(
    {
        "QUOTA_EXCEEDED",
        "OVERLOADED",
        "NO_WORKER",
        "WORKER_LOST",
        "KV_EXPIRED",
        "STALE_INCARNATION",
        UNREACHABLE,
    }
)
