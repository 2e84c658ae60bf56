"""With whom to be late, where not everybody can be in time."""

from __future__ import annotations

import heapq
from collections.abc import Sequence as Ordered
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to compute."""

    due_s: float
    """From now until it is due, seconds; negative where that is past."""
    length_s: float
    """Seconds of computing."""


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
    order = sorted(range(len(jobs)), key=lambda i: (jobs[i].due_s, i))
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
    return Verdict(
        kept=tuple(i for i in order if i not in given_up),
        sacrificed=tuple(sorted(given_up, key=lambda i: (jobs[i].length_s, i))),
    )
