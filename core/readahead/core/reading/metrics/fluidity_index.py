"""Etalon's fluidity index: the share of deadlines that were met."""

from __future__ import annotations

import math

from readahead.core.reading.curves import EPSILON_S
from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="fluidity_index",
    unit="share of deadlines, 0 to 1, per request",
    formula=(
        "deadlines met / deadlines; D_1 = arrival + TTFT bound, D_(i+1) = D_i + TBT bound; "
        "a token that is x late misses 1 + ⌊x / TBT bound⌋ deadlines, and the next is due "
        "one TBT bound after it"
    ),
    source="[Etalon]; an early token earns slack, a miss resets it",
    undefined="never; 0 without a token",
)

TTFT_BOUND_S = 1.0
"""For the first token, unless something else is given: what the scheduler aims at."""

TBT_BOUND_S = 0.2
"""Between tokens, unless something else is given: a reader's 5 tokens/s."""


def fluidity_index(
    timeline: Timeline, *, ttft_s: float = TTFT_BOUND_S, tbt_s: float = TBT_BOUND_S
) -> float:
    """1 iff no token came after its deadline.

    Ref: [Etalon] counts a long wait as many missed deadlines, as its authors' code does.
    """
    if not timeline.tokens:
        return 0.0
    deadline_s = timeline.arrival_s + ttft_s
    deadlines = missed = 0
    for t in timeline.token_times_s:
        late_s = t - deadline_s
        if late_s <= EPSILON_S:
            deadlines += 1
            deadline_s += tbt_s
        else:
            passed = 1 + math.floor(late_s / tbt_s + EPSILON_S)
            deadlines += passed
            missed += passed
            deadline_s = t + tbt_s
    return 1 - missed / deadlines
