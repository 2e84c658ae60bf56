"""What one request's log says: when it came, and when each of its tokens was delivered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from readahead.core.reading.curves import Slo


class Outcome(StrEnum):
    """How a request ended."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One request, as its user saw it. All times are seconds on one clock."""

    request_id: str
    arrival_s: float
    """When the user committed the request."""
    token_times_s: Sequence[float]
    """Delivery of each token; never decreasing."""
    prompt_tokens: int = 0
    outcome: Outcome = Outcome.FINISHED
    ended_s: float | None = None
    """When it ended or was given up. None: not known."""
    pace_tok_s: float | None = None
    """How fast its user reads. None: not known."""
    made_times_s: Sequence[float] | None = None
    """When each token existed, where the log says."""
    slo: Slo | None = None
    """What it was promised, where the log says."""
    thinking_tokens: int = 0
    """The first so many of its tokens are thinking, which nobody reads."""
    has_reader: bool = True
    """False: a program takes the answer as a whole, as in the rounds of a tool loop."""

    @property
    def tokens(self) -> int:
        """How many tokens were delivered."""
        return len(self.token_times_s)

    @property
    def read_times_s(self) -> Sequence[float]:
        """Delivery of each token that somebody reads: those after the thinking."""
        if not self.has_reader:
            return ()
        return self.token_times_s[self.thinking_tokens :]

    @property
    def last_s(self) -> float:
        """The last moment of which the log tells."""
        last_s = self.token_times_s[-1] if len(self.token_times_s) else self.arrival_s
        return last_s if self.ended_s is None else max(last_s, self.ended_s)

    @property
    def ended_normally(self) -> bool:
        """Whether it came to its own end; an answer without a token did not."""
        return self.outcome is Outcome.FINISHED and len(self.token_times_s) > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time in which a run was observed."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length, seconds."""
        return self.end_s - self.start_s


def window(timelines: Iterable[Timeline]) -> Window | None:
    """From the first arrival to the last moment that any of them tells of. None: there are none."""
    start_s, end_s = float("inf"), float("-inf")
    for timeline in timelines:
        start_s = min(start_s, timeline.arrival_s)
        end_s = max(end_s, timeline.last_s)
    return Window(start_s=start_s, end_s=end_s) if start_s <= end_s else None
