"""A gRPC server with health, reflection and our errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from readahead.runtime.config import TlsConfig
from readahead.runtime.rpc import health
from readahead.runtime.rpc.health import HealthBoard
from readahead.runtime.rpc.interceptor import ErrorInterceptor

__all__ = ["HealthBoard", "bind", "grpc_server"]


def grpc_server(
    *, services: Sequence[str], message_bytes_max: int, health_board: HealthBoard | None = None
) -> grpc.aio.Server:
    """A server without a port yet; `bind` gives it one.

    Args:
        services: full names, as in `readahead.v1.WorkerService`, for health and reflection.
        message_bytes_max: largest message in either direction.
        health_board: made from the same `services`; without one the answer stays NOT_SERVING.
    """
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor()],
        options=[
            ("grpc.so_reuseport", 0),  # two processes on one port would share it silently
            ("grpc.max_receive_message_length", message_bytes_max),
            ("grpc.max_send_message_length", message_bytes_max),
            # Clients ping idle connections every 10 s (`channel`); the default answer to the
            # third such ping is GOAWAY.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
    )
    health.add_to(server, health_board or HealthBoard(services))
    reflection.enable_server_reflection(
        (*services, health.SERVICE, reflection.SERVICE_NAME), server
    )
    return server


def bind(server: grpc.aio.Server, *, host: str, port: int, tls: TlsConfig) -> int:
    """Listens; returns the port, which the system chooses where 0 is asked for.

    Raises:
        OSError: the address cannot be had.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if not tls.certificate_file:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, _credentials(tls))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: {error}") from error


def _credentials(tls: TlsConfig) -> grpc.ServerCredentials:
    key = Path(tls.key_file).read_bytes()
    certificate = Path(tls.certificate_file).read_bytes()
    authority = tls.client_authority_file
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=Path(authority).read_bytes() if authority else None,
        require_client_auth=bool(authority),
    )
