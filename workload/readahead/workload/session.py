"""What users do: sessions of turns, planned before a run starts.

A plan knows true answer lengths; no policy of the router, the engines or the simulator sees it.
Times are seconds from the run's start, lengths are tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from readahead.workload.reader import Reader
from readahead.workload.slo import SloClass


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a prompt. Equal keys have equal text, so prompts that begin with the same
    segments share a prefix."""

    key: str
    tokens: int


class Pause(StrEnum):
    """From when a turn's pause counts."""

    READ = "read"
    """From when the reader has come to the end of the answer before: a person who thinks."""
    ENDED = "ended"
    """From when the answer before has ended: a tool that runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One request of a session.

    Its prompt is the prompt and the answer of the turn before (if it carries them on), then
    `segments`.
    """

    segments: tuple[Segment, ...]
    output_tokens: int
    thinking_tokens: int = 0
    """The first so many output tokens are thinking, which nobody reads."""
    has_reader: bool = True
    """False: a tool loop's round, whose output a program takes as a whole."""
    carries_context: bool = False
    pause_s: float = 0.0
    """0 for the first turn, which comes at the session's arrival."""
    pause_from: Pause = Pause.READ
    slo: SloClass | None = None

    @property
    def own_tokens(self) -> int:
        """Prompt tokens that this turn adds."""
        return sum(segment.tokens for segment in self.segments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user's visit: turns in order, each after the end of the one before."""

    session_id: str
    """Unique in its workload, and the same for the same workload."""
    arrival_s: float
    scenario: str
    tenant: str
    user: str
    reader: Reader
    turns: tuple[Turn, ...]

    def prompt_tokens(self, turn: int) -> int:
        """Length of a turn's whole prompt if every answer before has its planned length."""
        tokens = 0
        for index, one in enumerate(self.turns[: turn + 1]):
            before = self.turns[index - 1].output_tokens if index else 0
            tokens = one.own_tokens + (tokens + before if one.carries_context else 0)
        return tokens
