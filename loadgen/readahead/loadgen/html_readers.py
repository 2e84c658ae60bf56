"""What readers did over a run, all together: how much lay unread, and how many had to wait."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from readahead.core.reading.timeline import Outcome
from readahead.ruler.run import OUTCOMES, Floats
from readahead.ruler.scoring import RunScore

POINTS = 400
"""Of the timeline: more cannot be seen."""
STALL_S_MIN = 1e-3
"""A shorter wait is none that a reader notices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadersOverTime:
    """Means over equal steps of the run."""

    at_s: Floats
    """Middle of each step."""
    unread_tokens: Floats
    """Delivered and not yet read, of all users together."""
    idle_users: Floats
    """Users with nothing to read who wait for more."""
    open_requests: Floats
    """Requests that have arrived and whose last token has not come."""


def readers_over_time(found: RunScore) -> ReadersOverTime:
    """The state of all readers over the run, from the same due times as the ruler's idle time."""
    run, observed = found.run, found.observed
    start_s = observed.start_s
    unread: list[tuple[Floats, Floats]] = []
    waits: list[tuple[Floats, Floats]] = []
    for index in range(run.requests):
        timeline = run.timeline(index)
        times_s = np.array(timeline.read_times_s)
        curve = found.ruler.curve(timeline)
        begin_s, pace = curve.start_s(timeline), curve.pace_tok_s
        is_whole = OUTCOMES[run.outcomes[index]] is Outcome.FINISHED
        ended_s = float(run.lasts_s[index]) if len(times_s) == 0 else max(
            float(times_s[-1]), float(np.nan_to_num(run.ended_s[index], nan=times_s[-1]))
        )  # fmt: skip
        if not np.isfinite(begin_s):
            continue
        due_s = begin_s + np.arange(1, len(times_s) + 1) / pace
        behind_s = np.maximum.accumulate(np.maximum(0.0, times_s - due_s))
        read_s = due_s + behind_s
        steps_s = np.diff(behind_s, prepend=0.0)
        late = np.flatnonzero(steps_s > STALL_S_MIN)
        stall_ends_s, stall_begins_s = times_s[late], times_s[late] - steps_s[late]
        if not is_whole:
            # What lies unread when a request is cut off is never read; one who has read it waits.
            read_s = np.minimum(read_s, max(ended_s, float(times_s[-1]) if len(times_s) else 0.0))
            waiting_s = read_s[-1] + 1 / pace if len(read_s) else begin_s + 1 / pace
            if waiting_s < ended_s:
                stall_begins_s = np.append(stall_begins_s, waiting_s)
                stall_ends_s = np.append(stall_ends_s, ended_s)
        unread.append((times_s, read_s))
        waits.append((stall_begins_s, stall_ends_s))
    lasts_s = np.nan_to_num(run.lasts_s, nan=observed.end_s)
    end_s = max([observed.end_s, *(float(read_s[-1]) for _, read_s in unread if len(read_s))])
    edges_s = np.linspace(start_s, max(end_s, start_s + 1e-6), POINTS + 1)
    return ReadersOverTime(
        at_s=(edges_s[:-1] + edges_s[1:]) / 2 - start_s,
        unread_tokens=_mean_open(unread, edges_s),
        idle_users=_mean_open(waits, edges_s),
        open_requests=_mean_open([(run.arrivals_s, lasts_s)], edges_s),
    )


def _mean_open(spans: list[tuple[Floats, Floats]], edges_s: Floats) -> Floats:
    """How many of these spans (begins, ends) are open, mean over each step."""
    if not spans:
        return np.zeros(len(edges_s) - 1)
    begins_s = np.sort(np.concatenate([begins for begins, _ in spans]))
    ends_s = np.sort(np.concatenate([ends for _, ends in spans]))
    open_s = _time_past(begins_s, edges_s) - _time_past(ends_s, edges_s)
    mean: Floats = np.maximum(0.0, np.diff(open_s) / np.diff(edges_s))
    return mean


def _time_past(ascending_s: Floats, at_s: Floats) -> Floats:
    """Sum over all events of the time since each, at these times."""
    count = np.searchsorted(ascending_s, at_s, side="right")
    summed_s = np.concatenate([[0.0], np.cumsum(ascending_s)])[count]
    past: Floats = count * at_s - summed_s
    return past
