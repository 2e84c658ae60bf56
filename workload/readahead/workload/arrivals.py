"""When sessions begin: absolute times, computed ahead, whatever the system does.

Open loop: a slow server is offered just as much as a fast one.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from readahead.core.config import Checked

RATE_REQ_S_MAX = 1e9
"""Above it gaps are below what seconds in a float can tell apart."""
WEIBULL_CV_MAX = 20.0
"""Shape 0.2; heavier tails have sample means that hardly ever come near their rate."""


class Arrivals(Protocol):
    """A process of arrivals. Pure: all randomness is the caller's."""

    @property
    def is_endless(self) -> bool:
        """Whether it needs a limit from outside."""
        ...

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """Times from the run's start, seconds, ascending. A longer run begins with the shorter."""
        ...


def require_rate(field_name: str, rate_req_s: float) -> None:
    """Checks that a rate is positive and finite.

    Raises:
        ValueError: it is not; names the field.
    """
    if not 0 < rate_req_s <= RATE_REQ_S_MAX:
        raise ValueError(
            f"{field_name} must be a rate above 0 and finite, requests/s, got {rate_req_s!r}"
        )


def require_positive(field_name: str, value: float, unit: str) -> None:
    """Checks that a quantity is positive and finite.

    Raises:
        ValueError: it is not; names the field and the unit.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{field_name} must be above 0 and finite, {unit}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoissonArrivals(Checked):
    """Independent exponential gaps: many users who know nothing of each other."""

    kind: Literal["poisson"] = "poisson"
    rate_req_s: float
    """Mean rate, sessions per second."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_rate("arrivals.rate_req_s", self.rate_req_s)

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """An endless Poisson process."""
        return itertools.accumulate(rng.expovariate(self.rate_req_s) for _ in itertools.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class GammaArrivals(Checked):
    """Independent gamma gaps of a stated spread; `cv` 1 is Poisson, above 1 is burstier."""

    kind: Literal["gamma"] = "gamma"
    rate_req_s: float
    """Mean rate, sessions per second."""
    cv: float
    """Standard deviation of the gaps over their mean."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_rate("arrivals.rate_req_s", self.rate_req_s)
        require_positive("arrivals.cv", self.cv, "coefficient of variation")

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """An endless renewal process."""
        shape = self.cv**-2
        scale_s = 1 / (shape * self.rate_req_s)
        return itertools.accumulate(rng.gammavariate(shape, scale_s) for _ in itertools.count())


@dataclass(frozen=True, slots=True, kw_only=True)
class WeibullArrivals(Checked):
    """Independent Weibull gaps of a stated spread; above `cv` 1 the tail is heavier than gamma's.

    Production clients are fitted by one or the other.
    """

    kind: Literal["weibull"] = "weibull"
    rate_req_s: float
    """Mean rate, sessions per second."""
    cv: float
    """Standard deviation of the gaps over their mean."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_rate("arrivals.rate_req_s", self.rate_req_s)
        if not 0.01 <= self.cv <= WEIBULL_CV_MAX:
            raise ValueError(f"arrivals.cv must be in [0.01, {WEIBULL_CV_MAX:g}], got {self.cv!r}")

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """An endless renewal process."""
        shape = weibull_shape(self.cv)
        scale_s = 1 / (self.rate_req_s * math.gamma(1 + 1 / shape))
        return itertools.accumulate(rng.weibullvariate(scale_s, shape) for _ in itertools.count())


def weibull_shape(cv: float) -> float:
    """The shape whose gaps have this coefficient of variation; bisected, as it has no formula."""

    def log_square(shape: float) -> float:
        return math.lgamma(1 + 2 / shape) - 2 * math.lgamma(1 + 1 / shape)

    wanted = math.log1p(cv * cv)
    low, high = 0.1, 1000.0  # cv falls with the shape: about 430 and 0.0013 at the ends
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if log_square(middle) > wanted else (low, middle)
    return math.sqrt(low * high)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurstArrivals(Checked):
    """Batches that come at once, of geometric size, at the times of a Poisson process.

    Ref: [SLOs-Serve] synthetic bursts, mean 5.
    """

    kind: Literal["bursts"] = "bursts"
    rate_req_s: float
    """Mean rate, sessions (not batches) per second."""
    mean_batch: float = 5.0
    """Mean sessions in a batch; 1 is Poisson."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_rate("arrivals.rate_req_s", self.rate_req_s)
        if not 1 <= self.mean_batch <= 1e6:
            raise ValueError(f"arrivals.mean_batch must be in [1, 1e6], got {self.mean_batch!r}")

    def times_s(self, rng: random.Random) -> Iterator[float]:
        """An endless compound Poisson process."""
        batches_per_s = self.rate_req_s / self.mean_batch
        goes_on = 1 - 1 / self.mean_batch
        at_s = 0.0
        while True:
            at_s += rng.expovariate(batches_per_s)
            yield at_s
            while rng.random() < goes_on:
                yield at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop(Checked):
    """Not an arrival process: each of N users comes back as soon as his session is over.

    A slow server is offered less, so that its numbers flatter it. Labelled as such wherever a
    result is shown.
    """

    kind: Literal["closed"] = "closed"
    concurrency: int
    """Sessions in flight."""
    is_endless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 1_000_000:
            raise ValueError(
                f"arrivals.concurrency must be in [1, 1000000], got {self.concurrency!r}"
            )


def first_times_s(
    times_s: Iterator[float], *, sessions: int | None, duration_s: float | None
) -> Iterator[float]:
    """The arrivals of a run that ends after a number of sessions or a time, whichever is first."""
    if duration_s is not None:
        limit_s = duration_s
        times_s = itertools.takewhile(lambda at_s: at_s <= limit_s, times_s)
    return itertools.islice(times_s, sessions)
