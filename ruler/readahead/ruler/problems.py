"""What is wrong with a file: each finding named with its line, all of them counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

EXAMPLES_PER_KIND_MAX = 5
"""Findings of one kind that are kept in full; the rest are only counted."""

MESSAGE_CHARACTERS_MAX = 300
"""A longer message is cut: it may quote the file."""


class FormatError(Exception):
    """Nothing in the file can be scored; the message says why."""


class ProblemKind(StrEnum):
    """What can be wrong."""

    NOT_READABLE = "not_readable"
    """No JSON, or no row of the table."""
    TRUNCATED = "truncated"
    """The file ends within a record."""
    MISSING_FIELD = "missing_field"
    BAD_VALUE = "bad_value"
    """A field that is there, and is not what it should be."""
    NEGATIVE_TIME = "negative_time"
    UNORDERED_TIMES = "unordered_times"
    MIXED_CLOCKS = "mixed_clocks"
    """Times that cannot be of one clock."""
    DUPLICATE_ID = "duplicate_id"
    NO_FIRST_TOKEN = "no_first_token"
    """Said to have finished, without a token."""
    NO_TOKEN_TIMES = "no_token_times"
    """Tokens were delivered, and the log does not say when."""
    EMPTY_RUN = "empty_run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One finding."""

    file: str
    line: int
    kind: ProblemKind
    message: str
    is_left_out: bool
    """The request is not in the score."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(slots=True, kw_only=True)
class Problems:
    """The findings in one file: all counted, the first of each kind kept."""

    file: str
    examples: list[Problem] = field(default_factory=list)
    counts: Counter[ProblemKind] = field(default_factory=Counter)
    left_out: int = 0

    def add(
        self, kind: ProblemKind, message: str, *, line: int = 1, is_left_out: bool = True
    ) -> None:
        """Notes a finding; unless told otherwise, the request is left out."""
        self.counts[kind] += 1
        self.left_out += is_left_out
        if self.counts[kind] <= EXAMPLES_PER_KIND_MAX:
            problem = Problem(
                file=self.file,
                line=line,
                kind=kind,
                message=message[:MESSAGE_CHARACTERS_MAX],
                is_left_out=is_left_out,
            )
            self.examples.append(problem)

    @property
    def total(self) -> int:
        """How many findings there are."""
        return self.counts.total()
