"""The zero-load TTFT from requests that ran alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from readahead.ruler.promises import ZeroLoadTtft


def fit_zero_load_ttft(samples: Sequence[tuple[int, float]]) -> ZeroLoadTtft:
    """Least squares over (prompt tokens, TTFT in seconds) of requests that ran alone.

    Neither the base nor the slope is below 0: where the best line has a negative one, the best
    line without it is taken.

    Raises:
        ValueError: there is nothing to fit.
    """
    if not samples:
        raise ValueError("no request of the calibration got a first token")
    n = len(samples)
    mean_x = math.fsum(x for x, _ in samples) / n
    mean_y = math.fsum(y for _, y in samples) / n
    square = math.fsum((x - mean_x) ** 2 for x, _ in samples)
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in samples) / square if square else 0.0
    base_s = mean_y - slope * mean_x
    if slope < 0:
        slope, base_s = 0.0, mean_y
    elif base_s < 0:
        slope = math.fsum(x * y for x, y in samples) / math.fsum(x * x for x, _ in samples)
        base_s = 0.0
    lengths = sorted({x for x, _ in samples})
    return ZeroLoadTtft(
        base_s=base_s,
        per_token_s=slope,
        origin=f"measured: {n} requests alone, prompts of {lengths[0]} to {lengths[-1]} tokens",
    )
