"""Small simulated clusters and workloads, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from readahead.core.cluster import Role
from readahead.core.config import AdmissionConfig, CoreConfig, MigrationConfig
from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.planning.policies.vllm_chunked import VllmChunked
from readahead.core.planning.policy import BatchPolicy, Plan
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.engine import Engine
from readahead.sim.links import Link
from readahead.sim.stretch import Stretch
from readahead.workload.reader import Reader
from readahead.workload.session import Pause, Segment, Session, Turn

MODEL = LatencyModel(
    name="test",
    planes=(
        LatencyPlane(token_s=1e-4, past_token_s=1e-6, prefill_pair_s=1e-8, base_s=5e-3),
        LatencyPlane(request_s=1e-4, past_token_s=2e-6, base_s=8e-3),
    ),
)
PATIENT = CoreConfig(admission=AdmissionConfig(queue_requests_max=100_000, wait_s_max=3600))


def chunked(role: Role) -> BatchPolicy:
    return VllmChunked()


def small_spec(draw: random.Random) -> ClusterSpec:
    """Any cluster of up to five workers, KV memory short enough for preemptions."""
    worker = WorkerSpec(
        latency=MODEL,
        kv_blocks=draw.choice((40, 80, 400)),
        block_tokens=16,
        requests_max=draw.choice((2, 4, 16)),
        batch_tokens_max=draw.choice((64, 256, 2048)),
        context_tokens_max=600,
        prefill_credits=draw.choice((1, 3)),
        handover_lease_s=draw.choice((0.05, 1.0, 30.0)),
        true_scale=draw.choice((1.0, 1.3)),
        noise_sigma=draw.choice((0.0, 0.2)),
        has_prefix_cache=draw.random() < 0.5,
    )
    return ClusterSpec(
        policy=chunked,
        decode_worker=worker,
        prefill=draw.randrange(3),
        decode=draw.randrange(1, 4),
        link=Link(name="test", bytes_per_s=draw.choice((1e8, 1e10)), latency_s=1e-3),
        output_tokens_max=draw.choice((40, 300)),
        stretch_s_max=draw.choice((float("inf"), 0.1)),
        core=CoreConfig(
            admission=AdmissionConfig(queue_requests_max=30, wait_s_max=5.0),
            migration=MigrationConfig(
                trigger=draw.choice(("none", "load", "load", "need")),
                interval_s=0.05,
                cooldown_s=0.2,
                load_below_tokens=1e6,
                load_gap_tokens=0.0,
            ),
        ),
    )


def small_sessions(draw: random.Random, count: int) -> Iterator[Session]:
    """Sessions of one to three turns, some of whose readers leave."""
    at_s = 0.0
    for number in range(count):
        at_s += draw.expovariate(4.0)
        turns = tuple(
            Turn(
                segments=(
                    Segment("system", 32),
                    Segment(f"{number}/{index}", draw.choice((1, 40, 200))),
                ),
                output_tokens=draw.randrange(1, 60),
                carries_context=index > 0,
                pause_s=draw.random() if index else 0.0,
                pause_from=draw.choice((Pause.READ, Pause.ENDED)),
            )
            for index in range(draw.choice((1, 1, 2, 3)))
        )
        reader = Reader(
            pace_tok_s=draw.choice((5.0, 20.0)),
            patience_s=draw.choice((None, None, 0.5, 3.0)),
            leaves_after_tokens=draw.choice((None, None, 5)),
            report_every_s=draw.choice((None, 1.0)),
            tells_pace=draw.random() < 0.5,
        )
        yield Session(
            session_id=f"s{number}",
            arrival_s=at_s,
            scenario="test",
            tenant="t",
            user=f"u{number}",
            reader=reader,
            turns=turns,
        )


def one_turn(number: int, at_s: float, prompt: int, output: int, pace: float = 5.0) -> Session:
    """A session of one request."""
    return Session(
        session_id=f"s{number}",
        arrival_s=at_s,
        scenario="test",
        tenant="t",
        user="u",
        reader=Reader(pace_tok_s=pace),
        turns=(Turn(segments=(Segment(f"k{number}", prompt),), output_tokens=output),),
    )


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.requests: list[EndedRequest] = []
        self.stretches: list[tuple[str, float, float, int, int]] = []

    def ended(self, request: EndedRequest) -> None:
        self.requests.append(request)

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        about = engine.description
        self.stretches.append(
            (about.worker_id, stretch.start_s, stretch.end_s, stretch.iterations, plan.work.tokens)
        )
