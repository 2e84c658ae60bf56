"""How much prompt fits in an iteration that may take so long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s

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

    The chunk follows `before_tokens` of its prompt that are computed. Each plane gives the root of
    a quadratic, and the least root holds. Where the model has `tile_s`, a longer chunk may take
    less time than a shorter one: the longest of all that fit is found, from the longest down.

    Ref: [SLOs-Serve] Time2BS, the inverse of the iteration time.
    """
    beside = work.with_chunk(1, before_tokens=before_tokens)
    weight = model.past_weight(beside)
    host_s = model.host_base_s + model.host_request_s * beside.requests
    left_s = seconds / model.time_scale - host_s
    bounds = [
        _Bound(
            fixed_s=plane.seconds(work, past_weight=weight) + plane.request_s,
            token_s=plane.token_s + plane.prefill_pair_s * (before_tokens + 0.5),
            square_s=plane.prefill_pair_s / 2,
        )
        for plane in model.planes
    ]

    def fits(count: int) -> bool:
        chunked = work.with_chunk(count, before_tokens=before_tokens)
        return iteration_s(chunked, model=model) <= seconds

    least_s = 0.0 if model.tile_s is None else min(model.tile_s.values)
    end = min(one.over(left_s - least_s, 0.0)[1] for one in bounds)
    reach = most if end >= most else int(end) + 1  # nothing longer fits, whatever the tiles do
    for low, high, at_low_s, slope_s in _pieces(model, work.tokens, min(most, reach)):
        shifted = [one.over(left_s - at_low_s + slope_s * low, slope_s) for one in bounds]
        start = max(root for root, _ in shifted)
        end = min(root for _, root in shifted)
        tokens = high if end >= high else int(max(end, low - 1))
        while tokens < high and fits(tokens + 1):  # a root is rounded
            tokens += 1
        while tokens >= max(low, start - 1):
            if fits(tokens):
                return tokens
            tokens -= 1
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bound:
    """One plane's seconds by the tokens of the chunk: a square, a line, a constant."""

    fixed_s: float
    token_s: float
    square_s: float

    def over(self, left_s: float, slope_s: float) -> tuple[float, float]:
        """From how many tokens to how many it keeps within `left_s`, every token taking `slope_s`
        more; the end lies before the start where it never does."""
        spare_s, line_s = left_s - self.fixed_s, self.token_s + slope_s
        if self.square_s == 0 and line_s == 0:
            return (0.0, math.inf) if spare_s >= 0 else (math.inf, 0.0)
        if self.square_s == 0:
            root = spare_s / line_s
            return (0.0, root) if line_s > 0 else (root, math.inf)
        inside = line_s * line_s + 4 * self.square_s * spare_s
        if inside < 0:
            return math.inf, 0.0
        root = math.sqrt(inside)
        if line_s >= 0:  # so that nothing cancels
            end = 2 * spare_s / (line_s + root) if line_s + root > 0 else math.inf
            return -(line_s + root) / (2 * self.square_s), end
        return 2 * spare_s / (line_s - root), (root - line_s) / (2 * self.square_s)


def _pieces(model: LatencyModel, tokens: int, most: int) -> Iterator[tuple[int, int, float, float]]:
    """Chunks over which `tile_s` is straight, the longest first: from, to, its value at the first
    and what it adds with each token. They cover 1 to `most`."""
    curve = model.tile_s
    if curve is None or most < 1:
        yield 1, most, 0.0, 0.0
        return
    high = most
    for index in range(len(curve.sizes), 0, -1):
        low = max(1, curve.sizes[index - 1] - tokens)
        if low > high:
            continue
        at_low_s, slope_s = curve.at(low + tokens), 0.0
        if index < len(curve.sizes):
            rise_s = curve.values[index] - curve.values[index - 1]
            slope_s = rise_s / (curve.sizes[index] - curve.sizes[index - 1])
        yield low, high, at_low_s, slope_s
        high = low - 1
        if high < 1:
            return
    yield 1, high, curve.values[0], 0.0
