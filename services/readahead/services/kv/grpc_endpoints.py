"""Servers and channels of the KV transport: gRPC with threads, since an engine's worker process
has no event loop. Made after the last fork of the process that uses them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import grpc

from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.runtime.rpc.server import bind
from readahead.services.kv.grpc_wire import MESSAGE_BYTES_MAX

STREAMS_MAX = 8
"""Copies that are sent at once; others wait. With a message and a window each it bounds the bytes
in flight."""

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
]


def threaded_server(
    handlers: grpc.GenericRpcHandler, *, host: str, port: int, tls: TlsConfig
) -> tuple[grpc.Server, int]:
    """A server that runs, and its port.

    Raises:
        OSError: the address cannot be had, or a PEM file not read.
    """
    server = grpc.server(
        ThreadPoolExecutor(STREAMS_MAX, thread_name_prefix="kv-send"),
        handlers=[handlers],
        options=[
            *_OPTIONS,
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ],
    )
    bound = bind(cast(grpc.aio.Server, server), host=host, port=port, tls=tls)
    server.start()
    return server, bound


def threaded_channel(address: str, *, tls: PeerTlsConfig) -> grpc.Channel:
    """A channel of its own to one peer; it connects with the first call.

    Raises:
        OSError: a PEM file cannot be read.
    """
    options: list[tuple[str, int | str]] = [
        *_OPTIONS,
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]
    if not tls.authority_file:
        return grpc.insecure_channel(address, options=options)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(
        Path(tls.authority_file).read_bytes(),
        Path(tls.key_file).read_bytes() if tls.key_file else None,
        Path(tls.certificate_file).read_bytes() if tls.certificate_file else None,
    )
    return grpc.secure_channel(address, credentials, options=options)
