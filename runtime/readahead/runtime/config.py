"""Settings that every process shares."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.config import Checked, require


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig(Checked):
    """Logs, metrics and traces."""

    otlp_endpoint: str = ""
    """host:port of an OTLP gRPC receiver. Empty: no traces, and no cost."""
    otlp_is_insecure: bool = True
    """Without TLS."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """Where a process without an HTTP door serves /metrics. 0: nowhere."""
    log_level: str = "info"
    log_format: str = "auto"
    """"console", "json", or "auto": console on a terminal, else JSON."""

    def __post_init__(self) -> None:
        require("telemetry.metrics_port", self.metrics_port, least=0, most=65535)
        if self.log_level not in {"debug", "info", "warning", "error"}:
            raise ValueError(
                f"telemetry.log_level must be debug, info, warning or error, got {self.log_level!r}"
            )
        if self.log_format not in {"auto", "console", "json"}:
            raise ValueError(
                f"telemetry.log_format must be auto, console or json, got {self.log_format!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class MembershipConfig(Checked):
    """How workers and routers find each other."""

    redis_url: str = ""
    """redis://… Empty: the router dials `workers` and keeps the records in memory."""
    workers: tuple[str, ...] = ()
    """host:port of each worker, for a router without Redis."""
    lease_s: float = 3.0
    """A worker that has not renewed for this long is lost."""
    poll_s: float = 0.5
    """How often a router reads the records. A worker renews three times a lease."""

    def __post_init__(self) -> None:
        require("membership.lease_s", self.lease_s, least=0.5, most=300)
        require("membership.poll_s", self.poll_s, least=0.05, most=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTlsConfig(Checked):
    """How a process dials others: PEM files. No authority: no TLS."""

    authority_file: str = ""
    """Peers must show a certificate that this authority signed."""
    server_name: str = ""
    """Name that their certificates carry. Empty: the host that is dialled."""
    certificate_file: str = ""
    key_file: str = ""
    """Shown to peers that ask for a certificate."""

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("tls.certificate_file and tls.key_file go together")
        if (self.certificate_file or self.server_name) and not self.authority_file:
            raise ValueError("tls.authority_file is needed: without it nothing is encrypted")


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig(Checked):
    """How a process is dialled: PEM files. All empty: no TLS."""

    certificate_file: str = ""
    key_file: str = ""
    client_authority_file: str = ""
    """Clients must show a certificate that this authority signed. Empty: none is asked for."""

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("tls.certificate_file and tls.key_file go together")
