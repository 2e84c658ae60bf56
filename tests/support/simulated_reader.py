"""A reader who is played through event by event, and timelines for him to read.

Knows nothing of the code under test: no due times, no maximum, no recursion.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from hypothesis import strategies as st

from readahead.core.reading.timeline import Timeline

DELIVERY, READY = 0, 1

GAPS_S = st.lists(
    st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 0.05)), min_size=1, max_size=40
)
PACES_TOK_S = st.floats(0.5, 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What he did."""

    idle_s: float
    begun_s: list[float]
    """When he came to each token."""


def read(token_times_s: Sequence[float], *, pace_tok_s: float, ready_s: float) -> Reading:
    """Wants his first token at `ready_s`, then one each 1/pace; waits where he has none."""
    events = [(at, DELIVERY) for at in token_times_s] + [(ready_s, READY)]
    heapq.heapify(events)
    unread, waits_since, idle_s = 0, None, 0.0
    begun_s: list[float] = []
    while events:
        now, kind = heapq.heappop(events)
        if kind == DELIVERY:
            unread += 1
        if kind == READY:
            waits_since = now
        if waits_since is not None and unread:
            idle_s += now - waits_since
            unread -= 1
            waits_since = None
            begun_s.append(now)
            heapq.heappush(events, (now + 1 / pace_tok_s, READY))
    return Reading(idle_s=idle_s, begun_s=begun_s)


def random_timeline(random: Random) -> Timeline:
    """Bursts, stalls, late starts; one in ten has a single token."""
    tokens = 1 if random.random() < 0.1 else random.randrange(1, 60)
    burst = random.choice([0.0, 0.02, 0.2, 1.0])
    gaps_s = [random.choice([0.0, random.expovariate(5), burst]) for _ in range(tokens)]
    gaps_s[random.randrange(tokens)] += random.choice([0.0, 0.0, random.uniform(0, 8)])
    arrival_s = random.uniform(0, 100)
    return timeline(gaps_s, arrival_s=arrival_s)


def timeline(gaps_s: Sequence[float], *, arrival_s: float = 0.0) -> Timeline:
    """Each gap comes before its token."""
    times_s = list(accumulate(gaps_s, initial=arrival_s))[1:]
    return Timeline(request_id="r", arrival_s=arrival_s, token_times_s=times_s)
