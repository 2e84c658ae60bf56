"""Arrivals whose rate changes: ramps, steps, daily curves, and states that come and go.

All are Poisson at every moment. A process of rate 1 is mapped through the inverse of the
integrated rate, so that changing the rate keeps the pattern and only stretches it.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from readahead.core.config import Checked
from readahead.workload.arrivals import RATE_REQ_S_MAX, require_positive


class Stretch(NamedTuple):
    """A time over which the rate goes from one value to another in a straight line."""

    length_s: float
    from_req_s: float
    to_req_s: float


def modulated_times_s(rng: random.Random, stretches: Iterable[Stretch]) -> Iterator[float]:
    """A Poisson process whose rate follows the stretches, one after another; ends with them."""
    begin_s, area = 0.0, rng.expovariate(1.0)  # area: integrated rate at which the next one comes
    for length_s, from_req_s, to_req_s in stretches:
        flat = from_req_s == to_req_s
        mean = from_req_s if flat else (from_req_s + to_req_s) / 2
        whole = mean * length_s if mean else 0.0
        slope = 0.0 if flat else (to_req_s - from_req_s) / length_s
        while area <= whole:
            root = math.sqrt(max(0.0, from_req_s * from_req_s + 2 * slope * area))
            yield begin_s + min(length_s, 2 * area / (from_req_s + root))
            area += rng.expovariate(1.0)
        area -= whole
        begin_s += length_s


def _require_rates(field_name: str, rates_req_s: tuple[float, ...]) -> None:
    """Checks rates of which some may be 0.

    Raises:
        ValueError: one is negative or not finite, there is none, or all are 0.
    """
    for rate_req_s in rates_req_s:
        if not 0 <= rate_req_s <= RATE_REQ_S_MAX:
            raise ValueError(
                f"{field_name} must be rates of at least 0 and finite, requests/s, "
                f"got {rate_req_s!r}"
            )
    if not any(rates_req_s):
        raise ValueError(f"{field_name} must have a rate above 0, got {list(rates_req_s)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RampArrivals(Checked):
    """The rate goes from one value to another in a straight line, and stays there."""

    kind: Literal["ramp"] = "ramp"
    from_req_s: float
    to_req_s: float
    over_s: float
    """Length of the ramp."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_rates("arrivals.from_req_s", (self.from_req_s, 1.0))
        _require_rates("arrivals.to_req_s", (self.to_req_s,))
        require_positive("arrivals.over_s", self.over_s, "seconds")

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Endless."""
        ramp = Stretch(self.over_s, self.from_req_s, self.to_req_s)
        return modulated_times_s(rng, (ramp, Stretch(math.inf, self.to_req_s, self.to_req_s)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepArrivals(Checked):
    """One rate after another, each for the same time: a sweep in one run."""

    kind: Literal["steps"] = "steps"
    rates_req_s: tuple[float, ...]
    step_s: float
    """How long each rate lasts."""
    is_endless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_rates("arrivals.rates_req_s", self.rates_req_s)
        require_positive("arrivals.step_s", self.step_s, "seconds")

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Ends with the last step."""
        return modulated_times_s(
            rng, (Stretch(self.step_s, rate, rate) for rate in self.rates_req_s)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveArrivals(Checked):
    """A rate drawn through points in straight lines, such as that of a day."""

    kind: Literal["curve"] = "curve"
    at_s: tuple[float, ...]
    """Times of the points, ascending; the first is 0."""
    rates_req_s: tuple[float, ...]
    """The rate at each point."""
    repeats: bool = False
    """True: the curve begins anew at its last point, for ever. False: it ends there."""

    def __post_init__(self) -> None:
        _require_rates("arrivals.rates_req_s", self.rates_req_s)
        if len(self.at_s) != len(self.rates_req_s) or len(self.at_s) < 2:
            raise ValueError(
                "arrivals.at_s must have as many points as arrivals.rates_req_s, two at least, "
                f"got {len(self.at_s)} and {len(self.rates_req_s)}"
            )
        ascends = all(before < after for before, after in itertools.pairwise(self.at_s))
        if self.at_s[0] != 0 or not ascends or not self.at_s[-1] < math.inf:
            raise ValueError(f"arrivals.at_s must ascend from 0, seconds, got {list(self.at_s)}")

    @property
    def is_endless(self) -> bool:
        """Whether it repeats."""
        return self.repeats

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Ends with the last point, unless it repeats."""
        once = [
            Stretch(end - begin, *rates)
            for (begin, end), rates in zip(
                itertools.pairwise(self.at_s), itertools.pairwise(self.rates_req_s), strict=True
            )
        ]
        return modulated_times_s(rng, itertools.cycle(once) if self.repeats else once)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovArrivals(Checked):
    """States, each with its own rate, in turn for exponential times (an MMPP).

    It begins in a state drawn by the states' shares of time; from one state it goes to any other
    with equal chance. So each state's share of time is its mean dwell over the sum of them.
    """

    kind: Literal["markov"] = "markov"
    rates_req_s: tuple[float, ...]
    """Rate of each state; 0 is a state of silence."""
    dwells_s: tuple[float, ...]
    """Mean time that each state lasts."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _require_rates("arrivals.rates_req_s", self.rates_req_s)
        if len(self.dwells_s) != len(self.rates_req_s) or len(self.dwells_s) < 2:
            raise ValueError(
                "arrivals.dwells_s must have one time per rate, of two states at least, "
                f"got {len(self.dwells_s)} for {len(self.rates_req_s)} rates"
            )
        for dwell_s in self.dwells_s:
            require_positive("arrivals.dwells_s", dwell_s, "seconds")

    @property
    def rate_req_s(self) -> float:
        """Mean rate."""
        pairs = zip(self.rates_req_s, self.dwells_s, strict=True)
        return math.fsum(rate * dwell_s for rate, dwell_s in pairs) / math.fsum(self.dwells_s)

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Endless."""
        return modulated_times_s(rng, self._stretches(rng))

    def _stretches(self, rng: random.Random) -> Iterator[Stretch]:
        states = range(len(self.rates_req_s))
        state = rng.choices(states, self.dwells_s)[0]
        while True:
            rate_req_s = self.rates_req_s[state]
            yield Stretch(rng.expovariate(1 / self.dwells_s[state]), rate_req_s, rate_req_s)
            state = (state + rng.randrange(1, len(states))) % len(states)
