"""With whom to be late, where not everybody can be in time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from typing import NamedTuple

STEPS_MAX = 150
"""Sets that an improvement looks at before it ends: some 0.3 ms of one processor core."""
_CLOSE = 1e-9


class Job(NamedTuple):
    """A prompt to compute."""

    due_s: float
    """From now until it is due, seconds; negative where that is past."""
    length_s: float
    """Seconds of computing."""
    value: float = 1.0
    """What it is worth to be in time."""
    blocks: int = 0
    """Of memory that it takes, and keeps."""
    drag: float = 0.0
    """Share of the time that it takes from its due time on, if it is kept: that of its answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Indexes of jobs, each in exactly one of both."""

    kept: tuple[int, ...]
    """Those that can all be in time one after the other, in the order of their due times."""
    sacrificed: tuple[int, ...]
    """The others, shortest first."""


def moore_hodgson(jobs: Ordered[Job]) -> Verdict:
    """As few late jobs as possible on one machine.

    In the order of due times, and whenever the jobs so far cannot all be in time, the longest of
    them is given up. Ties go to the earlier index. O(n log n).

    Ref: [MooreHodgson]
    """
    order = _order(jobs)
    longest: list[tuple[float, int]] = []
    given_up: set[int] = set()
    end_s = 0.0
    for i in order:
        job = jobs[i]
        heapq.heappush(longest, (-job.length_s, -i))
        end_s += job.length_s
        if end_s > job.due_s:
            length_s, index = heapq.heappop(longest)
            end_s += length_s
            given_up.add(-index)
    return _verdict(jobs, [i for i in order if i not in given_up])


def most_in_time(jobs: Iterable[Job]) -> int:
    """How many of these, given first due first, `moore_hodgson` keeps; without saying whom."""
    longest: list[float] = []
    end_s = 0.0
    for due_s, length_s, *_ in jobs:
        heapq.heappush(longest, -length_s)
        end_s += length_s
        if end_s > due_s:
            end_s += heapq.heappop(longest)
    return len(longest)


def sacrifice_set(
    jobs: Ordered[Job],
    *,
    blocks_free: float = math.inf,
    cut_s: float = 0.0,
    steps_max: int = STEPS_MAX,
) -> Verdict:
    """Jobs of great value that can all be in time, and that find room together.

    Moore and Hodgson's rule, with values, memory and the time that answers take from prompts: in
    the order of due times, and whenever those so far do not fit, the one is given up that costs
    most for its value. Then the set is improved: who was given up is put in and those who cost
    most are given up for him, and who was kept is left out and others are put in for him, while
    that is worth more; for `steps_max` sets at most. It is the greatest number where values are
    1, nothing drags and memory is ample.

    Args:
        cut_s: so long before it is due a job must be done: an engine's steps are not endlessly
            small.
    """
    found = _Set(jobs, blocks_free, cut_s, steps_max)
    kept = found.cut_down(_order(jobs), frozenset())
    if len(kept) < len(jobs):
        kept = found.improved(kept)
    return _verdict(jobs, kept)


def _order(jobs: Ordered[Job]) -> list[int]:
    return sorted(range(len(jobs)), key=lambda i: (jobs[i].due_s, i))


def _verdict(jobs: Ordered[Job], kept: Ordered[int]) -> Verdict:
    rest = set(range(len(jobs))).difference(kept)
    return Verdict(
        kept=tuple(kept),
        sacrificed=tuple(sorted(rest, key=lambda i: (jobs[i].length_s, i))),
    )


@dataclass(slots=True)
class _Set:
    """What a set of jobs may be."""

    jobs: Ordered[Job]
    blocks_free: float
    cut_s: float
    steps_left: int
    keys: list[tuple[float, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [(job.due_s, i) for i, job in enumerate(self.jobs)]

    def fits(self, order: Iterable[int]) -> bool:
        """Whether all of these, first due first, are in time and find room."""
        self.steps_left -= 1
        jobs, at_s, speed, spare_s, blocks = self.jobs, 0.0, 1.0, -self.cut_s, self.blocks_free
        for i in order:
            job = jobs[i]
            if job.due_s > at_s:
                spare_s += speed * (job.due_s - at_s)
                at_s = job.due_s
            spare_s -= job.length_s
            speed -= job.drag
            blocks -= job.blocks
            if spare_s < 0 or speed < 0 or blocks < 0:
                return False
        return True

    def cut_down(self, order: Iterable[int], forced: frozenset[int]) -> list[int]:
        """As many of these, first due first, as fit; no forced one is given up for another."""
        jobs, kept = self.jobs, list[int]()
        at_s, speed, spare_s, blocks = 0.0, 1.0, -self.cut_s, self.blocks_free
        for i in order:
            job = jobs[i]
            if job.due_s > at_s:
                spare_s += speed * (job.due_s - at_s)
                at_s = job.due_s
            kept.append(i)
            spare_s -= job.length_s
            speed -= job.drag
            blocks -= job.blocks
            while kept and (spare_s < 0 or speed < 0 or blocks < 0):
                gone = self._dearest(kept, at_s, (spare_s < 0, speed < 0, blocks < 0), forced)
                kept.remove(gone)
                job = jobs[gone]
                spare_s += job.length_s + job.drag * max(0.0, at_s - max(0.0, job.due_s))
                speed += job.drag
                blocks += job.blocks
        return kept

    def _dearest(
        self,
        kept: list[int],
        at_s: float,
        lacks: tuple[bool, bool, bool],
        forced: frozenset[int],
    ) -> int:
        """Whose part of what is lacking is greatest for his value; of equals the first."""
        lacks_time, lacks_speed, lacks_blocks = lacks
        best, most = kept[-1], -1.0
        for i in kept:
            if i in forced:
                continue
            job = self.jobs[i]
            price = 0.0
            if lacks_time:
                price += (job.length_s + job.drag * max(0.0, at_s - job.due_s)) / (at_s + 1e-9)
            if lacks_speed:
                price += job.drag
            if lacks_blocks:
                price += job.blocks / (self.blocks_free + 1)
            price = price / job.value if job.value else math.inf
            if price > most:
                best, most = i, price
        return best

    def improved(self, kept: list[int]) -> list[int]:
        """A set that is worth no less."""
        kept = self._filled(kept)
        worth, most, is_better = self._worth(kept), self._most(), True
        while is_better and self.steps_left > 0 and worth < most - _CLOSE:
            is_better = False
            for other in self._neighbours(kept):
                value = self._worth(other)
                if value > worth + _CLOSE:
                    kept, worth, is_better = other, value, True
                    break
        return kept

    def _most(self) -> float:
        """No set is worth more: what parts of jobs are, for all the time and memory there is."""
        jobs = [job for job in self.jobs if job.due_s >= job.length_s + self.cut_s]
        last_s = max([job.due_s for job in jobs], default=0.0)
        most = min(
            _in_parts([(job.length_s, job.value) for job in jobs], last_s - self.cut_s),
            _in_parts([(job.blocks, job.value) for job in jobs], self.blocks_free),
        )
        is_whole = all(float(job.value).is_integer() for job in jobs)
        return math.floor(most + _CLOSE) if is_whole else most

    def _neighbours(self, kept: list[int]) -> Iterable[list[int]]:
        inside = set(kept)
        outside = sorted(
            (i for i in range(len(self.jobs)) if i not in inside),
            key=lambda i: -self.jobs[i].value,
        )
        for i in outside:
            if self.steps_left <= 0:
                return
            forced = frozenset((i,))
            merged = sorted([*kept, i], key=self.keys.__getitem__)
            other = self.cut_down(merged, forced)
            if self.fits(other):
                yield self._filled(other)
        for i in kept:
            if self.steps_left <= 0:
                return
            yield self._filled([k for k in kept if k != i], but=i)

    def _filled(self, kept: list[int], but: int = -1) -> list[int]:
        """With whoever else fits, the dearest in value for his cost first."""
        inside, jobs = set(kept), self.jobs
        outside = [i for i in range(len(jobs)) if i not in inside and i != but]
        outside.sort(key=lambda i: jobs[i].length_s / jobs[i].value if jobs[i].value else math.inf)
        for i in outside:
            if self.steps_left <= 0:
                break
            merged = sorted([*kept, i], key=self.keys.__getitem__)
            if self.fits(merged):
                kept = merged
        return kept

    def _worth(self, kept: list[int]) -> float:
        return math.fsum([self.jobs[i].value for i in kept])


def _in_parts(pieces: list[tuple[float, float]], room: float) -> float:
    """Most value in so much room, of pieces of size and value that may be cut."""
    found = 0.0
    for size, value in sorted(pieces, key=lambda p: p[0] / p[1] if p[1] else math.inf):
        if size > room:
            return found + value * max(0.0, room) / size
        found, room = found + value, room - size
    return found
