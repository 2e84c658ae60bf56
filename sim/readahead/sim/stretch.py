"""Iterations in a row with one batch: one record for all of them and all their sequences."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

import numpy as np

from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.latency.stretch import Stretch as Series
from readahead.core.planning.policy import Plan


class Stretch:
    """Some iterations of one batch. A sequence that makes tokens in it makes one in each.

    Where no noise is drawn, the ends are those of core's closed form, and are written out when
    somebody asks for them. A first iteration with a prompt chunk stands alone.
    """

    __slots__ = ("_ends_s", "_series", "end_s", "iterations", "start_s")

    def __init__(
        self, start_s: float, iterations: int, *, series: Series | None, ends_s: array[float] | None
    ) -> None:
        self.start_s = start_s
        self.iterations = iterations
        self._series = series
        self._ends_s = ends_s
        self.end_s = 0.0
        """When the last iteration ends."""
        self._settle()

    @property
    def first_s(self) -> float:
        """When the first iteration ends."""
        if self._ends_s is not None:
            return self._ends_s[0]
        assert self._series is not None
        return self.start_s + self._series.segments[0].first_s

    def ends_s(self) -> array[float]:
        """When each iteration ends; its tokens exist then."""
        if self._ends_s is None:
            assert self._series is not None
            self._ends_s = _written_out(self._series, self.iterations, start_s=self.start_s)
            self._ends_s[-1] = self.end_s
        return self._ends_s

    def cut(self, now_s: float) -> bool:
        """Ends the stretch with the iteration in progress. Returns whether that changes it."""
        if self.iterations == 1:
            return False
        kept = max(1, self._begun_by(now_s))
        if kept >= self.iterations:
            return False
        self.iterations = kept
        if self._ends_s is not None:
            del self._ends_s[kept:]
        self._settle()
        return True

    def head(self, iterations: int) -> Stretch:
        """Its first so many iterations, for one who leaves early."""
        return Stretch(self.start_s, iterations, series=None, ends_s=self.ends_s()[:iterations])

    def burst(self, tokens: int) -> Stretch:
        """One iteration, as one sees it who gets so many tokens at its end."""
        ends_s = array("d", (self.end_s,)) * tokens
        return Stretch(self.start_s, tokens, series=None, ends_s=ends_s)

    def done_by(self, now_s: float) -> int:
        """Iterations whose end has come."""
        if now_s >= self.end_s:
            return self.iterations
        return bisect_right(self.ends_s(), now_s)

    def _begun_by(self, now_s: float) -> int:
        """The first iterations up to the one that ends at `now_s` or is in progress then."""
        if self._series is None or self._ends_s is not None:
            return bisect_left(self.ends_s(), now_s) + 1
        whole = self._series.within(now_s - self.start_s, most=self.iterations)
        is_at_its_end = self.start_s + self._series.total_s(whole) >= now_s
        return whole if is_at_its_end else whole + 1

    def _settle(self) -> None:
        if self._series is None:
            assert self._ends_s is not None
            self.end_s = self._ends_s[-1]
        else:
            self.end_s = self.start_s + self._series.total_s(self.iterations)


@dataclass(frozen=True, slots=True, kw_only=True)
class Young:
    """What answers that begin do to iterations: a request with fewer than `tokens` of its own makes
    each iteration it is in longer by `each_s`, work that others on the machine have with it."""

    tokens: int = 0
    each_s: float = 0.0


NONE_YOUNG = Young()


class EngineTimes:
    """The true times of one engine's iterations: a model, and what no model says.

    With `noise_sigma` each iteration's time is multiplied by a lognormal factor of mean 1, drawn
    from the engine's own stream.
    """

    __slots__ = ("_count", "_draw", "_factor", "_mean_log", "_quiet", "_sigma", "_young", "model")

    def __init__(
        self,
        model: LatencyModel,
        *,
        scale: float,
        noise_sigma: float,
        seed: tuple[int, ...],
        young: Young = NONE_YOUNG,
    ) -> None:
        self._quiet = replace(model, time_scale=model.time_scale * scale)
        self.model = self._quiet
        self._factor, self._young, self._count = 1.0, young, 0
        self._sigma = noise_sigma
        self._mean_log = -noise_sigma * noise_sigma / 2
        self._draw = np.random.default_rng(list(seed)) if noise_sigma else None

    def slow_by(self, factor: float) -> None:
        """From the next stretch on, iterations take so many times as long as undisturbed ones."""
        self._factor = factor
        self._set()

    def grow_up(self, plan: Plan, iterations: int) -> int:
        """As many of these iterations as all who are young in them remain so; the times that follow
        are of that many."""
        limit, young = self._young.tokens, 0
        if not limit:
            return iterations
        for sequence, _ in plan.entries:
            left = limit - sequence.generated
            if sequence.missing == 1 and left > 0:
                young += 1
                iterations = min(iterations, left)
        if young != self._count:
            self._count = young
            self._set()
        return iterations

    def _set(self) -> None:
        quiet = self._quiet
        more_s = self._count * self._young.each_s / quiet.time_scale
        self.model = replace(
            quiet,
            time_scale=quiet.time_scale * self._factor,
            host_base_s=quiet.host_base_s + more_s,
        )

    def stretch(
        self, work: IterationWork, *, start_s: float, iterations: int, most_s: float
    ) -> Stretch:
        """So many iterations of this work, each with one further token per sequence, or fewer
        that do not take longer than `most_s`, but at least one."""
        if iterations == 1 and self._draw is None:
            end_s = start_s + iteration_s(work, model=self.model)
            return Stretch(start_s, 1, series=None, ends_s=array("d", (end_s,)))
        series = Series.of(work, model=self.model)
        if series.total_s(iterations) > most_s:
            iterations = max(1, series.within(most_s, most=iterations))
        if self._draw is None:
            return Stretch(start_s, iterations, series=series, ends_s=None)
        each_s = np.diff(_written_out(series, iterations, start_s=0.0), prepend=0.0)
        each_s *= self._draw.lognormal(self._mean_log, self._sigma, iterations)
        ends_s = array("d", (start_s + np.cumsum(each_s)).tobytes())
        return Stretch(start_s, iterations, series=None, ends_s=ends_s)

    def chunks(self, plan: Plan, *, start_s: float, iterations: int, most_s: float) -> Stretch:
        """The same where a prompt goes on beside: each of its chunks sees those before it."""
        work, model = plan.work, self.model
        past = sum([tokens == 1 for _, tokens in plan.entries])
        pairs = sum([tokens * tokens for _, tokens in plan.entries if tokens > 1])
        quiet_s, end_s, ends_s = 0.0, start_s, array("d")
        for _ in range(iterations):
            each_s = iteration_s(work, model=model)
            quiet_s += each_s
            if quiet_s > most_s and ends_s:
                break
            if self._draw is not None:
                each_s *= self._draw.lognormal(self._mean_log, self._sigma)
            end_s += each_s
            ends_s.append(end_s)
            work = replace(
                work,
                past_tokens=work.past_tokens + past,
                prefill_pairs=work.prefill_pairs + pairs,
            )
        return Stretch(start_s, len(ends_s), series=None, ends_s=ends_s)


def _written_out(series: Series, iterations: int, *, start_s: float) -> array[float]:
    ends_s = array("d")
    for index, segment in enumerate(series.segments):
        if segment.first >= iterations:
            break
        is_last = index + 1 == len(series.segments)
        until = iterations if is_last else min(iterations, series.segments[index + 1].first)
        done = np.arange(1, until - segment.first + 1, dtype=np.float64)
        each = done * (segment.first_s - segment.step_s / 2) + done * done * (segment.step_s / 2)
        ends_s.frombytes((each + (start_s + segment.before_s)).tobytes())
    return ends_s
