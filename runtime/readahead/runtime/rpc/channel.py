"""Channels to peers."""

from __future__ import annotations

from pathlib import Path

import grpc


def channel(
    address: str, *, message_bytes_max: int, tls_authority_file: str = ""
) -> grpc.aio.Channel:
    """A channel of its own to one peer; it connects with the first call.

    Args:
        address: host:port.
        message_bytes_max: largest message in either direction.
        tls_authority_file: PEM of the authority that signed the peer's certificate. Empty: no TLS.
    """
    options = [
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
    if not tls_authority_file:
        return grpc.aio.insecure_channel(address, options=options)
    authority = Path(tls_authority_file).read_bytes()
    return grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(authority), options=options
    )
