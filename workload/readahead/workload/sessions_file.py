"""The exact plan as a file: one session per line, JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from readahead.workload.session import Session
from readahead.workload.spec_problems import WorkloadError, first_problem


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Session]:
    return TypeAdapter(Session)


def session_lines(sessions: Iterable[Session]) -> Iterator[str]:
    """Each session as a line, with its end."""
    for session in sessions:
        yield _adapter().dump_json(session, exclude_defaults=True).decode() + "\n"


def read_sessions(path: Path) -> Iterator[Session]:
    """The sessions of a file.

    Raises:
        WorkloadError: the file cannot be read, or a line is not a session; names both.
    """
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield _adapter().validate_json(line)
                except ValidationError as error:
                    raise WorkloadError(
                        f"{path}, line {number}: expected a session: {first_problem(error)}"
                    ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path}: cannot be read: {error}") from error
