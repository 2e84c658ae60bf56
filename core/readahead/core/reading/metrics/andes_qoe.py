"""Andes' quality of experience: how little the reader's progress lags behind the ideal one."""

from __future__ import annotations

import math

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="andes_qoe",
    unit="0 to 1, per request",
    formula=(
        "1 - Σ_i (a_i - e_i) / Σ_i (a_n - e_i); e_i = arrival + TTFT target + i / speed, "
        "a_i = max(t_i, a_(i-1) + 1 / speed), a_0 = arrival + TTFT target"
    ),
    source="[Andes] its QoE, with its targets: 1.3 s and 4.8 tokens/s",
    undefined="nobody reads the request; 0 without a token to read",
)

TTFT_TARGET_S = 1.3
"""Ref: [Andes] for reading."""

SPEED_TOK_S = 4.8
"""Ref: [Andes] for reading."""


def andes_qoe(
    timeline: Timeline, *, ttft_s: float = TTFT_TARGET_S, speed_tok_s: float = SPEED_TOK_S
) -> float:
    """1 for a reader who never waits; 0 for one whose whole answer comes at once, too late."""
    read_s = timeline.read_times_s
    n = len(read_s)
    if not n:
        return 0.0
    start_s = timeline.arrival_s + ttft_s
    reads_s, behind_s = start_s, []
    for i, t in enumerate(read_s, start=1):
        due_s = start_s + i / speed_tok_s
        reads_s = max(t, reads_s + 1 / speed_tok_s, due_s)  # due_s: rounding does not add up
        behind_s.append(reads_s - due_s)
    behind = math.fsum(behind_s)
    if behind <= 0:
        return 1.0
    # a_n - e_i summed over i: the last lag, and the ideal time from token i to the last.
    whole = n * behind_s[-1] + n * (n - 1) / 2 / speed_tok_s
    return 1 - behind / whole
