"""Tokens per second, of which those far ahead of their reader count less."""

from __future__ import annotations

import math
from collections.abc import Iterable

from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.timeline import Timeline

METRIC = Metric(
    name="effective_throughput_tok_s",
    unit="tokens/s",
    formula=(
        "Σ_r Σ_i w_i / T; w_i = 1 up to 0.1 n unread tokens when token i comes, "
        "0 from 0.2 n on, linear between; over the tokens that are read"
    ),
    source="[TokenFlow] its weights, with the reader of `user_idle_s`",
    undefined="the run has no duration",
)

FULL_SHARE = 0.1
"""Unread share of the answer up to which a token counts whole. Ref: [TokenFlow] evaluation."""

NONE_SHARE = 0.2
"""Unread share of the answer from which it counts nothing. Ref: [TokenFlow] evaluation."""


def effective_tokens(timeline: Timeline, curve: ReadingCurve) -> float:
    """One request's tokens, each weighted by how soon it was needed."""
    read_s, pace_tok_s = timeline.read_times_s, curve.pace_tok_s
    reads_until = curve.start_s(timeline) + 1 / pace_tok_s
    weights = []
    for i, t in enumerate(read_s):
        unread = min(float(i), max(0.0, (reads_until - t) * pace_tok_s))
        weights.append(_weight(unread / len(read_s)))
        reads_until = max(reads_until, t) + 1 / pace_tok_s
    return math.fsum(weights)


def effective_throughput_tok_s(
    weighted_tokens: Iterable[float], *, duration_s: float
) -> float | None:
    """The weighted tokens of all requests of a run, per second of it."""
    return math.fsum(weighted_tokens) / duration_s if duration_s > 0 else None


def _weight(unread_share: float) -> float:
    return min(1.0, max(0.0, (NONE_SHARE - unread_share) / (NONE_SHARE - FULL_SHARE)))
