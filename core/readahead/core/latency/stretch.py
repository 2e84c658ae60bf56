"""Many iterations of one decoding batch, without going through them one by one.

While a batch only decodes, its past tokens grow by one for each request and iteration. Each plane
is then a line over the iterations, and the greatest of them changes at most once per plane: the
time of any number of iterations is a sum of a few arithmetic series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from readahead.core.latency.iteration import IterationWork, LatencyModel

ITERATIONS_MAX: Final = 1 << 30
"""What stands for any number of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segment:
    """Iterations over which one plane is the greatest."""

    first: int
    """Index of its first iteration."""
    before_s: float
    """Time of all iterations before it."""
    first_s: float
    """Time of its first iteration."""
    step_s: float
    """What each further one takes longer."""

    def elapsed_s(self, iterations: int) -> float:
        """Seconds of its first so many iterations."""
        return iterations * self.first_s + self.step_s * (iterations * (iterations - 1) / 2)

    def whole_within(self, seconds: float) -> float:
        """About how many of its iterations fit; the root of the series' quadratic."""
        if seconds <= 0:
            return 0.0
        slope = self.first_s - self.step_s / 2
        divisor = slope + math.sqrt(slope * slope + 2 * self.step_s * seconds)
        return 2 * seconds / divisor if divisor > 0 else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """The times of a batch that goes on decoding. Made once, asked often."""

    segments: tuple[_Segment, ...]

    @classmethod
    def of(cls, work: IterationWork, *, model: LatencyModel) -> Stretch:
        """The stretch that begins with this work: its past tokens grow by its requests each time.

        O(planes²), whatever its length.
        """
        if work.tokens == 0:
            return cls(segments=(_Segment(first=0, before_s=0.0, first_s=0.0, step_s=0.0),))
        weight = model.past_weight(work)
        beside_s = model.beside_s(work)
        scale, grows = model.time_scale, weight * work.requests
        lines = [
            (
                scale * (beside_s + plane.seconds(work, past_weight=weight)),
                scale * plane.past_token_s * grows,
            )
            for plane in model.planes
        ]
        segments: list[_Segment] = []
        start_s, step_s = max(lines)
        first, before_s = 0, 0.0
        while True:
            segment = _Segment(
                first=first, before_s=before_s, first_s=start_s + step_s * first, step_s=step_s
            )
            segments.append(segment)
            ahead = _overtaking(lines, (start_s, step_s), after=first)
            if ahead is None:
                return cls(segments=tuple(segments))
            following, (start_s, step_s) = ahead
            before_s += segment.elapsed_s(following - first)
            first = following

    def total_s(self, iterations: int) -> float:
        """Seconds that so many iterations take together."""
        for segment in reversed(self.segments):
            if iterations >= segment.first:
                return segment.before_s + segment.elapsed_s(iterations - segment.first)
        raise ValueError(f"iterations must be >= 0, got {iterations}")

    def within(self, seconds: float, *, most: int = ITERATIONS_MAX) -> int:
        """How many whole iterations end within so many seconds, `most` at the most."""
        if seconds < 0:
            return 0
        segment = self.segments[0]
        for one in self.segments:
            if one.before_s > seconds:
                break
            segment = one
        fit = segment.first + segment.whole_within(seconds - segment.before_s)
        count = most if fit >= most else int(fit)
        while count < most and self.total_s(count + 1) <= seconds:  # a root is rounded
            count += 1
        while count > 0 and self.total_s(count) > seconds:
            count -= 1
        return count

    def times_s(self, iterations: int) -> tuple[float, ...]:
        """When each of so many iterations ends, seconds from the first one's start."""
        ends: list[float] = []
        for index, segment in enumerate(self.segments):
            is_last = index + 1 == len(self.segments)
            until = iterations if is_last else min(iterations, self.segments[index + 1].first)
            ends += [
                segment.before_s + segment.elapsed_s(done)
                for done in range(1, until - segment.first + 1)
            ]
        return tuple(ends)


def stretch_s(work: IterationWork, iterations: int, *, model: LatencyModel) -> float:
    """Seconds of so many iterations, of which the first is `work` and each reads on.

    The same as adding `iteration_s` up with past_tokens grown by `requests` after each.

    Raises:
        ValueError: `iterations` is negative.
    """
    return Stretch.of(work, model=model).total_s(iterations)


def iterations_within(
    work: IterationWork, seconds: float, *, model: LatencyModel, most: int = ITERATIONS_MAX
) -> int:
    """How many whole iterations, of which the first is `work`, end within so many seconds."""
    return Stretch.of(work, model=model).within(seconds, most=most)


def times_s(work: IterationWork, iterations: int, *, model: LatencyModel) -> tuple[float, ...]:
    """When each of so many iterations ends, seconds from the start of the first."""
    return Stretch.of(work, model=model).times_s(iterations)


def _overtaking(
    lines: list[tuple[float, float]], ruling: tuple[float, float], *, after: int
) -> tuple[int, tuple[float, float]] | None:
    """The first iteration that another line rules, and that line; None where none ever does."""
    start_s, step_s = ruling
    best: tuple[int, float, float, tuple[float, float]] | None = None
    for line in lines:
        if line[1] <= step_s:
            continue
        index = max(after, math.floor((start_s - line[0]) / (line[1] - step_s))) + 1
        if index >= ITERATIONS_MAX:
            continue
        candidate = (index, -(line[0] + line[1] * index), -line[1], line)
        best = candidate if best is None or candidate < best else best
    return None if best is None else (best[0], best[3])
