"""What is simulated: workers, their engines, and what connects them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from readahead.core.cluster import Role, WorkerDescription
from readahead.core.config import CoreConfig, require
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.policy import BatchPolicy, EngineLimits
from readahead.core.request import Incarnation, WorkerId
from readahead.sim.drafts import Predictability
from readahead.sim.links import LINKS, Link

PolicyMaker = Callable[[Role], BatchPolicy]
"""A policy for one engine; called once for each incarnation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A worker of one role."""

    latency: LatencyModel
    """What its scheduler believes; its true times are these, scaled and with noise."""
    kv_blocks: int = 26_000
    block_tokens: int = 16
    requests_max: int = 256
    batch_tokens_max: int = 8192
    context_tokens_max: int = 131_072
    prefill_credits: int = 4
    handover_lease_s: float = 30.0
    true_scale: float = 1.0
    """True iteration times over believed ones."""
    noise_sigma: float = 0.0
    """Of the logarithm of each iteration's true time; its mean is kept."""
    has_prefix_cache: bool = False
    draft_tokens_max: int = 0
    """Longest draft that is verified in one iteration; 0: no speculation. A step of drafting takes
    what the iteration-time model says."""
    contention: float = 0.0
    """How much longer its iterations take for each other engine that computes meanwhile, as a
    share: where engines share a machine's processors and memory."""
    young_tokens: int = 0
    """A request with fewer tokens of its own is young; 0: none is."""
    young_s: float = 0.0
    """How much longer an iteration takes for each young request in it: an answer that begins makes
    work for others on the machine, such as the router, which an iteration-time model has not."""
    host_blocks: int = 0
    """KV blocks that host memory holds for those who are parked; 0: nobody can be."""
    host_link: Link = LINKS["pcie4"]
    """Between device and host memory; each worker has its own."""

    def __post_init__(self) -> None:
        for name in ("kv_blocks", "block_tokens", "requests_max", "batch_tokens_max"):
            require(name, getattr(self, name), least=1)
        require("prefill_credits", self.prefill_credits, least=1)
        require("handover_lease_s", self.handover_lease_s, least=1e-3)
        require("true_scale", self.true_scale, least=1e-6)
        require("noise_sigma", self.noise_sigma, least=0, most=3)
        require("contention", self.contention, least=0, most=100)
        require("young_tokens", self.young_tokens, least=0)
        require("young_s", self.young_s, least=0, most=10)
        require("draft_tokens_max", self.draft_tokens_max, least=0, most=64)
        require("host_blocks", self.host_blocks, least=0)
        if not 2 <= self.context_tokens_max <= self.kv_blocks * self.block_tokens:
            raise ValueError(
                f"context_tokens_max must be from 2 to kv_blocks * block_tokens = "
                f"{self.kv_blocks * self.block_tokens}, or a request never ends; "
                f"got {self.context_tokens_max}"
            )

    def limits(self) -> EngineLimits:
        """As the engine's planner takes them."""
        return EngineLimits(
            kv_blocks=self.kv_blocks,
            block_tokens=self.block_tokens,
            requests_max=self.requests_max,
            batch_tokens_max=self.batch_tokens_max,
            latency=self.latency,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """All workers and the router. Without prefill workers the others do both."""

    policy: PolicyMaker
    decode_worker: WorkerSpec
    prefill_worker: WorkerSpec | None = None
    """None: as the decode workers."""
    prefill: int = 0
    decode: int = 1
    link: Link = LINKS["nvlink-h100"]
    kv_token_bytes: int = 131_072
    """Of one token's KV; 32 layers, 8 KV heads of 128, 16 bits."""
    predictability: Predictability = field(default_factory=Predictability)
    """Of answers, where engines speculate."""
    core: CoreConfig = field(default_factory=CoreConfig)
    output_tokens_max: int = 2048
    """What every request says is the most it wants: nobody knows the true length."""
    tells_true_length: bool = False
    """Each request says its true length instead, as a load generator does that has its answers
    end there. Only to compare with such a run: the router's placement then knows the future."""
    tells_slo: bool = False
    """Engines are told what a request's scenario promises, where it promises something, instead of
    how fast its reader reads: when the first token is due, and the pace of each stage."""
    stretch_s_max: float = math.inf
    """How old the router's knowledge of an engine can become, seconds."""

    def __post_init__(self) -> None:
        require("prefill", self.prefill, least=0)
        require("decode", self.decode, least=1)
        require("kv_token_bytes", self.kv_token_bytes, least=1)
        require("output_tokens_max", self.output_tokens_max, least=1)
        if not self.stretch_s_max > 0:
            raise ValueError(f"stretch_s_max must be > 0, got {self.stretch_s_max}")

    def worker(self, role: Role) -> WorkerSpec:
        """The workers of a role."""
        if role is Role.PREFILL and self.prefill_worker is not None:
            return self.prefill_worker
        return self.decode_worker

    def worker_ids(self) -> list[tuple[WorkerId, Role]]:
        """All workers, those of one role together."""
        counts = ((Role.PREFILL, self.prefill), (Role.DECODE, self.decode))
        return [(WorkerId(f"{role}-{n:02}"), role) for role, count in counts for n in range(count)]

    def description(self, worker_id: WorkerId, role: Role, incarnation: int) -> WorkerDescription:
        """What such a worker says of itself."""
        spec = self.worker(role)
        is_prefill = role is Role.PREFILL
        return WorkerDescription(
            worker_id=worker_id,
            incarnation=Incarnation(f"{worker_id}#{incarnation}"),
            role=role,
            engine="simulated",
            model=spec.latency.name,
            context_tokens_max=spec.context_tokens_max,
            block_tokens=spec.block_tokens,
            kv_blocks=spec.kv_blocks,
            requests_max=spec.requests_max,
            prefill_credits=spec.prefill_credits if is_prefill else 0,
            handover_lease_s=spec.handover_lease_s if is_prefill else 0.0,
        )


def zero_load_ttft_s(spec: ClusterSpec, prompt_tokens: int) -> float:
    """Time to the first token of such a prompt that has the cluster to itself, without noise."""
    remote = spec.prefill and prompt_tokens >= spec.core.placement.remote_prefill_tokens_min
    worker = spec.worker(Role.PREFILL if remote else Role.DECODE)
    elapsed_s, done = 0.0, 0
    while done < prompt_tokens:
        chunk = min(worker.batch_tokens_max, prompt_tokens - done)
        work = IterationWork(tokens=0, requests=0, past_tokens=0, prefill_pairs=0)
        work = work.with_chunk(chunk, before_tokens=done)
        elapsed_s += worker.true_scale * iteration_s(work, model=worker.latency)
        done += chunk
    if remote:
        decode = spec.worker(Role.DECODE)
        last = IterationWork(tokens=1, requests=1, past_tokens=prompt_tokens - 1, prefill_pairs=0)
        elapsed_s += spec.link.alone_s(prompt_tokens * spec.kv_token_bytes)
        elapsed_s += decode.true_scale * iteration_s(last, model=decode.latency)
    return elapsed_s
