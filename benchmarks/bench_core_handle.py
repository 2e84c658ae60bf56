"""Time of one `RouterState.handle` call with 1,000 live requests.

    python benchmarks/bench_core_handle.py

Aim: at most 50 us median. Runs on one core, without I/O; the mix of events is that of a busy
router: 1,000 requests through 4 prefill and 4 decode workers, then 200 engine steps of 64 tokens
on each decode worker, then 1,000 requests that each end and are replaced.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.config import CoreConfig
from readahead.core.messages import (
    Event,
    LegFinished,
    PrefillFinished,
    RequestArrived,
    StepObserved,
    SubmitLeg,
    TokensMade,
    WorkerJoined,
)
from readahead.core.request import FinishReason, Incarnation, Leg, RequestId, WorkerId
from readahead.core.router_state import RouterState

LIVE = 1000
STEPS = 200
STEP_TOKENS = 64
POOL = 4
FIRST = Incarnation("1")
LOAD = WorkerLoad(running=250, waiting=0, kv_blocks_free=1000)


def description(name: str, role: Role) -> WorkerDescription:
    return WorkerDescription(
        worker_id=WorkerId(name),
        incarnation=FIRST,
        role=role,
        engine="emulated",
        model="m",
        context_tokens_max=8192,
        block_tokens=16,
        kv_blocks=20_000,
        requests_max=256,
        prefill_credits=4,
        handover_lease_s=30.0,
    )


class Bench:
    """A router's core with its workers played by the shortest possible answers."""

    def __init__(self) -> None:
        self.state = RouterState(CoreConfig())
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.decoding: dict[RequestId, WorkerId] = {}
        for n in range(POOL):
            for name, role in ((f"p{n}", Role.PREFILL), (f"d{n}", Role.DECODE)):
                self.state.handle(WorkerJoined(description=description(name, role)), now=0.0)

    def send(self, event: Event, now: float) -> None:
        started = time.perf_counter()
        commands = self.state.handle(event, now=now)
        self.seconds[type(event).__name__].append(time.perf_counter() - started)
        for command in commands:
            if not isinstance(command, SubmitLeg):
                continue
            if command.leg is Leg.PREFILL:
                finished = PrefillFinished(
                    request_id=command.request_id, attempt=1, worker_id=command.worker_id
                )
                self.send(finished, now)
            else:
                self.decoding[command.request_id] = command.worker_id

    def arrive(self, n: int, now: float) -> None:
        self.send(
            RequestArrived(
                request_id=RequestId(f"r{n}"),
                prompt_tokens=100,
                output_tokens_max=50,
                pace_tok_s=5.0,
            ),
            now,
        )

    def step(self, worker_id: WorkerId, now: float) -> None:
        here = [each for each, worker in self.decoding.items() if worker == worker_id]
        made = tuple(
            TokensMade(request_id=each, attempt=1, tokens=1) for each in here[:STEP_TOKENS]
        )
        self.send(StepObserved(worker_id=worker_id, incarnation=FIRST, load=LOAD, made=made), now)

    def replace_oldest(self, n: int, now: float) -> None:
        request_id, worker_id = next(iter(self.decoding.items()))
        del self.decoding[request_id]
        self.send(
            LegFinished(
                request_id=request_id,
                attempt=1,
                worker_id=worker_id,
                finish_reason=FinishReason.STOP,
            ),
            now,
        )
        self.arrive(n, now)


def main() -> None:
    bench = Bench()
    for n in range(LIVE):
        bench.arrive(n, 0.0)
    assert len(bench.decoding) == LIVE
    bench.seconds.clear()
    now = 1.0
    for _ in range(STEPS):
        for n in range(POOL):
            bench.step(WorkerId(f"d{n}"), now)
        now += 0.02
    for n in range(LIVE, 2 * LIVE):
        bench.replace_oldest(n, now)
        now += 0.001
    print(f"RouterState.handle with {LIVE} live requests, {2 * POOL} workers")
    print(f"{'event':<18}{'calls':>7}{'median us':>11}{'p99 us':>9}")
    everything = []
    for name, seconds in sorted(bench.seconds.items()):
        everything += seconds
        percentiles = statistics.quantiles(seconds, n=100)
        median_us = statistics.median(seconds) * 1e6
        print(f"{name:<18}{len(seconds):>7}{median_us:>11.1f}{percentiles[98] * 1e6:>9.1f}")
    print(f"{'all':<18}{len(everything):>7}{statistics.median(everything) * 1e6:>11.1f}")


if __name__ == "__main__":
    main()
