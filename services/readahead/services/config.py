"""Settings of a worker process."""

from __future__ import annotations

from dataclasses import dataclass, field

from readahead.core.cluster import Role
from readahead.core.config import Checked, require
from readahead.runtime.config import MembershipConfig, TelemetryConfig, TlsConfig


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
        require("engine.emulated_time_scale", self.emulated_time_scale, least=1e-6, most=1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class KvConfig(Checked):
    """How KV caches move between workers."""

    backend: str = "nixl"
    """"nixl"."""
    side_channel_host: str = "127.0.0.1"
    side_channel_port: int = 0
    """Where peers fetch NIXL metadata. 0: a free port."""
    lease_s: int = 30
    """How long an un-pulled KV cache is kept without a renewal. vLLM beats every lease // 6."""

    def __post_init__(self) -> None:
        if self.backend != "nixl":
            raise ValueError(f"kv.backend must be nixl, got {self.backend!r}")
        require("kv.side_channel_port", self.side_channel_port, least=0, most=65535)
        require("kv.lease_s", self.lease_s, least=6, most=3600)


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
