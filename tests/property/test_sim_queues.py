"""Queues whose waits are known in closed form, through router, worker and engine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from small_clusters import PATIENT, Kept, chunked, one_turn

from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.world import World
from readahead.workload.session import Session

TOKENS_MEAN = 5000
"""Of a prompt that takes one second; whole tokens are fine enough for an exponential."""
SERVICE = LatencyModel(name="queue", planes=(LatencyPlane(token_s=1 / TOKENS_MEAN),))


def spec() -> ClusterSpec:
    """One worker that serves one request at a time, each in one iteration."""
    worker = WorkerSpec(
        latency=SERVICE,
        requests_max=1,
        batch_tokens_max=200_000,
        context_tokens_max=200_000,
    )
    return ClusterSpec(policy=chunked, decode_worker=worker, core=PATIENT, output_tokens_max=1)


def arrivals(kind: str, rho: float, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Poisson arrivals, and prompts whose times have mean 1 s."""
    draw = np.random.default_rng(seed)
    at_s = np.cumsum(draw.exponential(1 / rho, count))
    if kind == "M/D/1":
        return at_s, np.full(count, TOKENS_MEAN)
    return at_s, np.ceil(draw.exponential(TOKENS_MEAN, count)).astype(int)


def closed_form_s(kind: str, rho: float) -> float:
    """Mean wait before service of mean 1 s (Pollaczek and Khinchine)."""
    return rho / (2 * (1 - rho)) if kind == "M/D/1" else rho / (1 - rho)


def lindley_s(at_s: np.ndarray, service_s: np.ndarray) -> np.ndarray:
    """Waits of a single server, first come first served, unrolled into a running minimum."""
    steps = np.concatenate([[0.0], service_s[:-1] - np.diff(at_s)])
    ahead_s = np.cumsum(steps)
    waits: np.ndarray = ahead_s - np.minimum.accumulate(np.minimum(ahead_s, 0.0))
    return waits


def simulated_s(at_s: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    def sessions() -> Iterator[Session]:
        for number, (at, prompt) in enumerate(zip(at_s, tokens, strict=True)):
            yield one_turn(number, float(at), int(prompt), 1)

    kept = Kept()
    World(spec(), sessions(), sink=kept).run()
    first_s = {request.request_id: request.token_times_s[0] for request in kept.requests}
    served_s = np.array([first_s[f"s{number}"] for number in range(len(at_s))])
    waits: np.ndarray = served_s - at_s - tokens / TOKENS_MEAN
    return waits


@pytest.mark.parametrize("kind", ["M/D/1", "M/M/1"])
@pytest.mark.parametrize("rho", [0.5, 0.8])
def test_each_wait_is_that_of_the_queue(kind: str, rho: float) -> None:
    """The simulator's wait of every single request is Lindley's, and Lindley's mean over four
    million of them is the closed form. Together they say the simulator's is, without the noise of
    a mean over as few requests as a test has time for."""
    at_s, tokens = arrivals(kind, rho, 4000, seed=1)
    assert simulated_s(at_s, tokens) == pytest.approx(
        lindley_s(at_s, tokens / TOKENS_MEAN), abs=1e-7
    )
    at_s, tokens = arrivals(kind, rho, 4_000_000, seed=2)
    mean_s = float(lindley_s(at_s, tokens / TOKENS_MEAN).mean())
    assert mean_s == pytest.approx(closed_form_s(kind, rho), rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["M/D/1", "M/M/1"])
def test_mean_waits_are_the_closed_form(kind: str) -> None:
    """Directly; the mean of 400,000 waits has a standard deviation of about 0.6 to 0.9 %."""
    at_s, tokens = arrivals(kind, 0.5, 400_000, seed=3)
    mean_s = float(simulated_s(at_s, tokens).mean())
    assert mean_s == pytest.approx(closed_form_s(kind, 0.5), rel=0.02)
