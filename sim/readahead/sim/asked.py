"""A request that is under way: what its user asked, and what came of it so far."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from readahead.core.reading.timeline import Outcome
from readahead.core.request import RequestId
from readahead.sim.engine_leg import Prefix
from readahead.workload.reader import Reader
from readahead.workload.reading_run import Habit, ReaderRun
from readahead.workload.session import Session, Turn
from readahead.workload.slo import SloClass

if TYPE_CHECKING:
    from readahead.sim.drafts import RightDrafts
    from readahead.sim.engine import Engine
    from readahead.sim.kernel import Appointment
    from readahead.sim.stretch import Stretch


@dataclass(slots=True, eq=False, kw_only=True)
class AskedRequest:
    """One turn of a session that has been sent and has not ended."""

    request_id: RequestId
    session: Session
    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    """Its true length."""
    output_tokens_max: int
    """What the router is told."""
    pace_tok_s: float
    """What the router is told."""
    prefix: Prefix
    stretches: list[Stretch] = field(default_factory=list)
    right: RightDrafts | None = None
    """Which drafts of its answer are right, once an engine that drafts has it."""
    watch: ReaderWatch | None = None
    engine: Engine | None = None
    """Where its leg is, or was last."""
    source: Engine | None = None
    """Where its prompt's KV was computed."""
    attempt: int = 1

    @property
    def turn(self) -> Turn:
        """As planned."""
        return self.session.turns[self.index]

    def token_times_s(self) -> array[float]:
        """When each of its tokens was made."""
        times_s = array("d")
        for stretch in self.stretches:
            if stretch.iterations == 1:
                times_s.append(stretch.end_s)
            else:
                times_s.extend(stretch.ends_s())
        return times_s


class ReaderWatch:
    """Follows a reader who may leave, or who reports, without going along with every token.

    It is asked at the earliest moment at which he could do something if all the text were there;
    it then takes in what has come by then, and says when to ask again.
    """

    __slots__ = ("_habit", "_next", "_offset", "_wanted", "due", "run")

    def __init__(self, reader: Reader, *, commit_s: float, thinking_tokens: int) -> None:
        self.run = ReaderRun(reader, commit_s=commit_s, thinking_tokens=thinking_tokens)
        self._habit = Habit(reader)
        wanted = reader.leaves_after_tokens
        self._wanted = None if wanted is None else max(1, wanted)
        self._next = 0
        self._offset = 0
        self.due: Appointment | None = None

    def take_in(self, asked: AskedRequest, part: tuple[Stretch, int] | None) -> None:
        """Lets him have all text that he has not got yet; `part` is of a stretch in progress."""
        run = self.run
        stretches = asked.stretches
        while self._next < len(stretches):
            for at_s in stretches[self._next].ends_s()[self._offset :]:
                run.deliver(1, now=at_s)
            self._next, self._offset = self._next + 1, 0
        if part is not None:
            stretch, done = part
            for at_s in stretch.ends_s()[self._offset : done]:
                run.deliver(1, now=at_s)
            self._offset = max(self._offset, done)

    def next_s(self, now_s: float) -> float:
        """When to ask again; inf for never."""
        run = self.run
        at_s = min(run.leaves_at_s, run.next_report_s)
        if self._wanted is not None and run.read_enough_s == math.inf:
            read = run.read_tokens(now_s) + run.unread_tokens(now_s)
            rest_s = self._habit.seconds(self._wanted - 1) - self._habit.seconds(read)
            at_s = min(at_s, now_s + max(0.0, run.slack_s(now_s)) + max(0.0, rest_s))
            if at_s <= now_s:  # he waits for the very token with which he leaves
                at_s = now_s + self._habit.seconds(1)
        return max(at_s, now_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRequest:
    """One request's record. All times are seconds from the run's start, simulated."""

    request_id: str
    session_id: str
    scenario: str
    tenant: str
    turn: int
    arrival_s: float
    ended_s: float
    token_times_s: array[float]
    prompt_tokens: int
    pace_tok_s: float | None
    outcome: Outcome
    error: str | None
    attempts: int
    slo: SloClass | None
    thinking_tokens: int = 0
    has_reader: bool = True
    """False: a tool's round, whose output a program takes."""
