"""An engine of equal slots and the readers who share its places: small enough for brute force.

Slot k lasts from second k to k + 1, and what is made in it comes at its end. A reader has at most
one place in a slot, as one who decodes has in an iteration. A prompt's tokens, which need not wait
for one another, are as many readers of one token each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

from readahead.core.reading.clock import ReadingClock
from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.timeline import Timeline


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReader:
    """One request; none of its tokens is made before slot `arrives`."""

    arrives: int = 0
    tokens: int = 1
    pace_tok_s: float = 1.0
    offset_s: float = 0.0

    def due_s(self, token: int) -> float:
        """When a token is due, counted from 1."""
        return self.arrives + self.offset_s + token / self.pace_tok_s


@dataclass(slots=True)
class Served:
    """A reader and what he got so far."""

    reader: SlotReader
    times_s: list[float] = field(default_factory=list)
    clock: ReadingClock = field(init=False)

    def __post_init__(self) -> None:
        reader = self.reader
        self.clock = ReadingClock(
            pace_tok_s=reader.pace_tok_s, commit_s=reader.arrives, offset_s=reader.offset_s
        )

    @property
    def left(self) -> int:
        return self.reader.tokens - len(self.times_s)

    @property
    def original_due_s(self) -> float:
        """Of his next token, by the curve; waits so far do not move it."""
        return self.reader.due_s(len(self.times_s) + 1)

    @property
    def shifted_due_s(self) -> float:
        """Of his next token, waits so far included."""
        return self.clock.deadline_s

    @property
    def idle_s(self) -> float:
        timeline = Timeline(
            request_id="r", arrival_s=self.reader.arrives, token_times_s=self.times_s
        )
        reader = self.reader
        return idle_s(
            timeline, ReadingCurve(pace_tok_s=reader.pace_tok_s, offset_s=reader.offset_s)
        )

    def deliver(self, now: float) -> None:
        self.times_s.append(now)
        self.clock.deliver(1, now=now)


def play(
    readers: Sequence[SlotReader], *, places: int, urgency: Callable[[Served], float]
) -> list[Served]:
    """Serves all of them, in each slot those of least `urgency` who are there."""
    served, slot = [Served(each) for each in readers], 0
    while any(each.left for each in served):
        here = [each for each in served if each.left and each.reader.arrives <= slot]
        for each in sorted(here, key=urgency)[:places]:
            each.deliver(slot + 1)
        slot += 1
    return served


def least_worst_idle_s(readers: Sequence[SlotReader], *, places: int) -> float:
    """The least that the one who waits longest must wait, over all orders."""
    return _least(readers, places, max)


def least_total_idle_s(readers: Sequence[SlotReader], *, places: int) -> float:
    """The least that all of them must wait together, over all orders."""
    return _least(readers, places, math.fsum)


def _least(
    readers: Sequence[SlotReader], places: int, goal: Callable[[tuple[float, ...]], float]
) -> float:
    """No place stays empty while somebody could have it: a token that comes sooner hurts nobody."""

    @cache
    def least(slot: int, made: tuple[int, ...], late_s: tuple[float, ...]) -> float:
        numbers = range(len(readers))
        if all(made[n] == readers[n].tokens for n in numbers):
            return goal(late_s)
        here = [n for n in numbers if made[n] < readers[n].tokens and readers[n].arrives <= slot]
        best = math.inf
        for chosen in combinations(here, min(places, len(here))):
            now_late_s = tuple(
                max(late_s[n], slot + 1 - readers[n].due_s(made[n] + 1))
                if n in chosen
                else late_s[n]
                for n in numbers
            )
            now_made = tuple(made[n] + (n in chosen) for n in numbers)
            best = min(best, least(slot + 1, now_made, now_late_s))
        return best

    nobody = tuple(0.0 for _ in readers)
    return least(0, tuple(0 for _ in readers), nobody)
