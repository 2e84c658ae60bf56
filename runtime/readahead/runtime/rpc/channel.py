"""Channels to peers."""

from __future__ import annotations

from pathlib import Path

import grpc

from readahead.runtime.config import PeerTlsConfig

NO_TLS = PeerTlsConfig()


def channel(
    address: str, *, message_bytes_max: int, tls: PeerTlsConfig = NO_TLS
) -> grpc.aio.Channel:
    """A channel of its own to one peer; it connects with the first call.

    Args:
        address: host:port.
        message_bytes_max: largest message in either direction.
        tls: whom to trust and what to show.

    Raises:
        OSError: a PEM file cannot be read.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", message_bytes_max),
        # A peer that vanishes without a FIN is noticed within 15 s, on idle streams too.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted peer is dialled again within a second; the default backs off to minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),  # no backoff inherited from another channel
        ("grpc.enable_retries", 0),  # who retries knows about attempts
        ("grpc.enable_http_proxy", 0),  # peers are in the cluster, whatever the environment says
    ]
    if not tls.authority_file:
        return grpc.aio.insecure_channel(address, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(
        Path(tls.authority_file).read_bytes(),
        Path(tls.key_file).read_bytes() if tls.key_file else None,
        Path(tls.certificate_file).read_bytes() if tls.certificate_file else None,
    )
    return grpc.aio.secure_channel(address, credentials, options=options)
