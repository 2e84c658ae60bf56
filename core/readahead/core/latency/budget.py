"""How much prompt fits in an iteration that may take so long."""

from __future__ import annotations

import math
from typing import Final

from readahead.core.latency.iteration import IterationWork, LatencyModel, LatencyPlane, iteration_s

NO_WORK: Final = IterationWork(tokens=0, requests=0, past_tokens=0, prefill_pairs=0)
CHUNK_TOKENS_MAX: Final = 16_384
"""Largest chunk that is asked for; the cap of SLOs-Serve's own inverse."""


def tokens_within(
    seconds: float,
    *,
    model: LatencyModel,
    work: IterationWork = NO_WORK,
    before_tokens: int = 0,
    most: int = CHUNK_TOKENS_MAX,
) -> int:
    """The longest prompt chunk that may join `work` so that the iteration ends in time; 0 for none.

    The chunk follows `before_tokens` of its prompt that are computed. O(planes): each plane gives
    the root of a quadratic, and the least root holds.

    Ref: [SLOs-Serve] Time2BS, the inverse of the iteration time.
    """
    within = math.inf
    beside = work.with_chunk(1, before_tokens=before_tokens)
    weight = model.past_weight(beside)
    left_s = seconds / model.time_scale - model.host_s(beside)
    for plane in model.planes:
        fixed_s = plane.seconds(work, past_weight=weight) + plane.request_s
        within = min(within, _root(plane, left_s - fixed_s, before_tokens=before_tokens))
    tokens = most if within >= most else int(within)

    def fits(count: int) -> bool:
        chunked = work.with_chunk(count, before_tokens=before_tokens)
        return iteration_s(chunked, model=model) <= seconds

    while tokens < most and fits(tokens + 1):  # a root is rounded
        tokens += 1
    while tokens > 0 and not fits(tokens):
        tokens -= 1
    return tokens


def _root(plane: LatencyPlane, left_s: float, *, before_tokens: int) -> float:
    """Tokens of a chunk that this plane allows in what is left."""
    if left_s < 0:
        return 0.0
    linear_s = plane.token_s + plane.prefill_pair_s * (before_tokens + 0.5)
    divisor = linear_s + math.sqrt(linear_s * linear_s + 2 * plane.prefill_pair_s * left_s)
    return 2 * left_s / divisor if divisor > 0 else math.inf
