"""When requests are meant to be sent: computed ahead, whatever the system does."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


def poisson_arrivals_s(rng: random.Random, *, rate_req_s: float) -> Iterator[float]:
    """Send times of an endless Poisson process, seconds from the run's start, ascending.

    Independent exponential gaps: the arrivals of many users who know nothing of each other.
    Open loop: a slow server is offered just as much as a fast one.
    """
    if not 0 < rate_req_s < float("inf"):
        raise ValueError(f"rate_req_s must be positive and finite, got {rate_req_s}")
    return itertools.accumulate(rng.expovariate(rate_req_s) for _ in itertools.count())


def first_arrivals_s(
    arrivals_s: Iterator[float], *, requests: int | None, duration_s: float | None
) -> list[float]:
    """The arrivals of a run that ends after a number of requests or a time, whichever is first."""
    if requests is None and duration_s is None:
        raise ValueError("a run needs a number of requests or a duration")
    if duration_s is not None:
        limit_s = duration_s
        arrivals_s = itertools.takewhile(lambda at_s: at_s <= limit_s, arrivals_s)
    return list(itertools.islice(arrivals_s, requests))
