"""Settings of a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from readahead.core.cluster import Role
from readahead.core.config import Checked, require
from readahead.runtime.config import (
    MembershipConfig,
    PeerTlsConfig,
    TelemetryConfig,
    TlsConfig,
)
from readahead.services.engine.vllm_scheduler_names import make_engine_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationConfig(Checked):
    """Tokens that are guessed, and verified several at once. Greedy text stays the same."""

    method: str = ""
    """Empty: none. "ngram": what followed the last tokens where they stood before; vLLM then does
    not schedule asynchronously. "draft_model": what a smaller model says; the same on all workers,
    since its KV travels too."""
    model_path: str = ""
    """For `draft_model`: Hugging Face folder of a model with the same tokenizer."""
    draft_tokens_max: int = 5
    """Longest draft."""
    is_adaptive: bool = True
    """Whether each request's drafts are cut to what the planner finds worth it, by what of them was
    accepted so far."""

    def __post_init__(self) -> None:
        if self.method not in {"", "ngram", "draft_model"}:
            raise ValueError(
                "engine.speculation.method must be empty, ngram or draft_model, "
                f"got {self.method!r}"
            )
        if bool(self.model_path) != (self.method == "draft_model"):
            raise ValueError(
                "engine.speculation.model_path is for the method draft_model, which needs it"
            )
        require("engine.speculation.draft_tokens_max", self.draft_tokens_max, least=1, most=32)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig(Checked):
    """What generates tokens."""

    kind: str = "vllm"
    """"vllm", or "emulated": a stand-in with a latency model, for scale tests of the router."""
    model_path: str = ""
    """Hugging Face folder."""
    model_name: str = ""
    """Name that callers use. Empty: the folder's name."""
    dtype: str = "auto"
    context_tokens_max: int = 0
    """0: the model's own."""
    kv_bytes: int = 0
    """Memory for KV caches. 0: vLLM decides on a GPU; 64 MiB on a CPU."""
    gpu_memory_share: float = 0.9
    """Part of the GPU's memory that vLLM takes, where `kv_bytes` is 0."""
    requests_max: int = 128
    """Most requests in a batch."""
    batch_tokens_max: int = 2048
    """Most tokens in an iteration."""
    is_eager: bool = False
    """No graph capture; always so on a CPU."""
    tensor_parallel_size: int = 1
    iteration_log: str = ""
    """File that gets a line for each iteration, for `readahead calibrate`. Empty: none."""
    policy: str = "vllm"
    """What decides each iteration of a vLLM engine: "vllm", its own order, or a policy of ours."""
    policy_knobs: Mapping[str, float] = field(default_factory=dict)
    """Knobs of the policy that are turned; the others have their defaults."""
    planner_budget_s: float = 0.002
    """Longest time for a plan; after more, the iteration takes vLLM's own order."""
    delivery_lag_s: float = 0.02
    """What a token takes from the engine to its reader, as the planner counts it."""
    latency_profile: str = ""
    """Iteration times that the planner believes in: a profile's name, or a .json file as
    `readahead calibrate` writes it. Empty: it plans by tokens alone."""
    speculation: SpeculationConfig = field(default_factory=SpeculationConfig)
    """Of vLLM engines."""
    emulated_time_scale: float = 1.0
    """For `emulated`: multiplies every modelled time; 0.1 runs ten times faster."""

    def __post_init__(self) -> None:
        if self.kind not in {"vllm", "emulated"}:
            raise ValueError(f"engine.kind must be vllm or emulated, got {self.kind!r}")
        require("engine.context_tokens_max", self.context_tokens_max, least=0)
        require("engine.kv_bytes", self.kv_bytes, least=0)
        require("engine.gpu_memory_share", self.gpu_memory_share, least=0.05, most=1)
        require("engine.requests_max", self.requests_max, least=1)
        require("engine.batch_tokens_max", self.batch_tokens_max, least=16)
        require("engine.tensor_parallel_size", self.tensor_parallel_size, least=1)
        try:
            make_engine_policy(self.policy, self.policy_knobs)
        except ValueError as error:
            raise ValueError(f"engine.policy: {error}") from None
        require("engine.planner_budget_s", self.planner_budget_s, least=1e-5, most=1)
        require("engine.delivery_lag_s", self.delivery_lag_s, least=0, most=10)
        require("engine.emulated_time_scale", self.emulated_time_scale, least=1e-6, most=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvConfig(Checked):
    """How KV caches move between workers."""

    backend: str = "nixl"
    """"nixl"; "grpc": gRPC streams by way of a copy in host memory, where there is no fabric; or
    "auto": NIXL, with gRPC in its place where it does not come up, and for pulls that fail."""
    side_channel_host: str = "127.0.0.1"
    side_channel_port: int = 0
    """Where peers fetch NIXL metadata, or KV caches themselves over gRPC. 0: a free port. Ranks
    of a tensor-parallel engine take the ports that follow, and gRPC those after NIXL's."""
    lease_s: int = 30
    """How long an un-pulled KV cache is kept without a renewal. vLLM beats every lease // 6."""
    host_bytes: int = 1 << 30
    """For gRPC: most host memory for copies of KV caches, for each rank; taken as it is used."""
    tls: TlsConfig = field(default_factory=TlsConfig)
    """For gRPC: how peers dial this worker for KV caches. Empty: as the worker's own `tls`."""
    peer_tls: PeerTlsConfig = field(default_factory=PeerTlsConfig)
    """For gRPC: how this worker dials peers. Empty: it trusts the authority in `tls` that signs
    its clients, and shows its own certificate."""

    def __post_init__(self) -> None:
        if self.backend not in {"nixl", "grpc", "auto"}:
            raise ValueError(f"kv.backend must be nixl, grpc or auto, got {self.backend!r}")
        require("kv.side_channel_port", self.side_channel_port, least=0, most=65535)
        require("kv.lease_s", self.lease_s, least=6, most=3600)
        require("kv.host_bytes", self.host_bytes, least=0)

    def secured(self, tls: TlsConfig) -> KvConfig:
        """With the worker's own certificate where this has none.

        Raises:
            ValueError: peers would serve TLS and it is not said whom to trust.
        """
        if self.backend == "nixl":
            return self
        own = self.tls if self.tls.certificate_file else tls
        peer = self.peer_tls
        if own.certificate_file and not peer.authority_file:
            if not own.client_authority_file:
                raise ValueError(
                    "kv.peer_tls.authority_file is needed: peers show certificates, and "
                    "neither it nor tls.client_authority_file says who signs them"
                )
            peer = PeerTlsConfig(
                authority_file=own.client_authority_file,
                certificate_file=own.certificate_file,
                key_file=own.key_file,
            )
        return replace(self, tls=own, peer_tls=peer)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(Checked):
    """All of a worker's settings."""

    role: Role
    worker_id: str = ""
    """Stable name. Empty: <role>-<host name>-<port>."""
    host: str = "127.0.0.1"
    port: int = 0
    """gRPC. 0: a free port."""
    advertised_address: str = ""
    """host:port under which routers reach this worker. Empty: host and port."""
    prefill_credits: int = 4
    """Most prefill legs a router keeps here at once; enough to hide a round trip."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    kv: KvConfig = field(default_factory=KvConfig)
    membership: MembershipConfig = field(default_factory=MembershipConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    drain_s_max: float = 30.0
    """Longest wait at shutdown for running legs."""

    def __post_init__(self) -> None:
        require("port", self.port, least=0, most=65535)
        require("prefill_credits", self.prefill_credits, least=1, most=1024)
        require("drain_s_max", self.drain_s_max, least=0, most=3600)
