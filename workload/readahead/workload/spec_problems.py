"""What is wrong with a workload, in words that name the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails


class WorkloadError(ValueError):
    """A workload cannot be planned; names the file, if there is one, and each key."""


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong."""
    return next(problems(error))


def problems(error: ValidationError) -> Iterator[str]:
    """Everything that is wrong, each with its key."""
    for found in error.errors(include_url=False):
        yield _said(found)


def _said(found: ErrorDetails) -> str:
    key = _key(found["loc"])
    match found["type"]:
        case "value_error":
            message = found["msg"].removeprefix("Value error, ")
            return message if not key or message.startswith(key) else f"{key}: {message}"
        case "missing":
            return f"{key} must be set"
        case "unexpected_keyword_argument":
            return f"{key} is an unknown key"
        case "union_tag_not_found":
            return f"{key}.kind must be set"
        case "union_tag_invalid":
            context: Mapping[str, object] = found["ctx"]
            return f"{key}.kind must be one of {context['expected_tags']}, got {context['tag']!r}"
        case _:
            return f"{key}: {found['msg']}, got {found['input']!r}"


def _key(location: tuple[int | str, ...]) -> str:
    """`mix[0].arrivals.cv`; the kind, which pydantic puts behind `arrivals`, is left out."""
    key = ""
    for before, part in zip((None, *location), location, strict=False):
        if before == "arrivals" and key:
            continue
        key += f"[{part}]" if isinstance(part, int) else f".{part}"
    return key.removeprefix(".")
