"""Errors as OpenAI clients read them: an error object and headers that say whether to retry."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from readahead.core.errors import REASONS, ReadaheadError, Reason
from readahead.router.checks import invalid

Headers = list[tuple[bytes, bytes]]


class HttpRefusal(ReadaheadError):
    """An INVALID_REQUEST for which HTTP has a status of its own, such as 404, 405 or 413."""

    def __init__(
        self, status: int, message: str, *, parameter: str | None = None, allow: str = ""
    ) -> None:
        super().__init__(Reason.INVALID_REQUEST, message, parameter=parameter)
        self.status = status
        self.allow = allow
        """Methods that are allowed, for 405."""


class ClientGone(Exception):
    """The client closed its connection; there is nobody to answer."""


def status_of(error: ReadaheadError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HttpRefusal):
        return error.status
    return REASONS[error.reason].http_status


def error_body(error: ReadaheadError) -> bytes:
    """OpenAI's error object, as JSON."""
    return json.dumps(
        {
            "error": {
                "message": error.message,
                "type": REASONS[error.reason].openai_type,
                "param": error.parameter,
                "code": error.reason.lower(),
            }
        }
    ).encode()


def error_headers(error: ReadaheadError) -> Headers:
    """What a client needs to decide on a retry."""
    is_retryable = REASONS[error.reason].is_retryable
    headers = [(b"x-should-retry", b"true" if is_retryable else b"false")]
    if error.retry_after_s is not None:
        milliseconds = math.ceil(error.retry_after_s * 1000)
        headers.append((b"retry-after-ms", str(milliseconds).encode()))
        # Whole seconds, rounded up: HTTP knows no others.
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    if isinstance(error, HttpRefusal) and error.allow:
        headers.append((b"allow", error.allow.encode()))
    return headers


def from_validation(error: ValidationError) -> ReadaheadError:
    """The first complaint about a body, in OpenAI's words where it has some."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    # An unknown field is told last: a wrong value of a known one says more.
    detail = min(details, key=lambda each: each["type"] == "extra_forbidden")
    parameter = parameter_of(detail["loc"])
    return invalid(_message(detail, parameter), parameter=parameter or None)


def parameter_of(location: Sequence[int | str]) -> str:
    """A field's path as OpenAI writes it: `messages[0].content`."""
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step.isidentifier():  # not the name of a union's member
            path += f".{step}" if path else step
    return path


def _message(detail: ErrorDetails, parameter: str) -> str:
    match detail["type"]:
        case "extra_forbidden":
            return f"Unrecognized request argument supplied: {parameter}"
        case "missing":
            return f"Missing required parameter: '{parameter}'."
        case "json_invalid":
            return f"We could not parse the JSON body of your request: {detail['msg']}."
        case "model_type" if not parameter:
            return "The body of the request must be a JSON object."
        case _:
            return f"Invalid value for '{parameter}': {detail['msg']}."
