"""Settings of a router process."""

from __future__ import annotations

from dataclasses import dataclass, field

from readahead.core.config import Checked, CoreConfig, require
from readahead.core.slo import SloConfig
from readahead.runtime.config import MembershipConfig, PeerTlsConfig, TelemetryConfig, TlsConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorsConfig(Checked):
    """Where the router listens and what it takes."""

    host: str = "127.0.0.1"
    http_port: int = 8000
    """0: a free port. -1: no HTTP door."""
    grpc_port: int = 50051
    """0: a free port."""
    body_bytes_max: int = 8 << 20
    """Largest HTTP body and gRPC message; a 128k-token prompt is below 1 MiB of text."""
    requests_max: int = 4096
    """Most requests alive at once, queued ones included."""
    client_stall_s_max: float = 60.0
    """A client that takes no bytes for this long is treated as gone."""
    frame_gap_s_max: float = 0.05
    """Longest that tokens wait for the next frame while their reader has 20 times as long left to
    read: below what an eye takes for a pause, and three engine steps a frame. 0: never."""
    slo: SloConfig = field(default_factory=SloConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)

    def __post_init__(self) -> None:
        require("doors.http_port", self.http_port, least=-1, most=65535)
        require("doors.grpc_port", self.grpc_port, least=0, most=65535)
        require("doors.body_bytes_max", self.body_bytes_max, least=1024)
        require("doors.requests_max", self.requests_max, least=1)
        require("doors.frame_gap_s_max", self.frame_gap_s_max, least=0, most=1)
        require("doors.client_stall_s_max", self.client_stall_s_max, least=0.1, most=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig(Checked):
    """The model that the workers serve."""

    path: str = ""
    """Hugging Face folder; the router reads its tokenizer and chat template."""
    name: str = ""
    """Name that callers use. Empty: the folder's name."""
    think_end: str = "</think>"
    """Text with which the model's thinking ends, where that is one of its tokens; thinking and
    answer may be promised different times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig(Checked):
    """All of a router's settings."""

    model: ModelConfig = field(default_factory=ModelConfig)
    doors: DoorsConfig = field(default_factory=DoorsConfig)
    core: CoreConfig = field(default_factory=CoreConfig)
    membership: MembershipConfig = field(default_factory=MembershipConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    worker_tls: PeerTlsConfig = field(default_factory=PeerTlsConfig)
    worker_silence_s_max: float = 3.0
    """A worker whose connection is broken for this long is lost, whatever its lease says."""
    drain_s_max: float = 30.0
    """Longest wait at shutdown for running requests."""

    def __post_init__(self) -> None:
        require("worker_silence_s_max", self.worker_silence_s_max, least=0.1, most=300)
        require("drain_s_max", self.drain_s_max, least=0, most=3600)
