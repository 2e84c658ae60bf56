"""Where the server is and how to talk to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

MESSAGE_BYTES_MAX = 8 << 20
"""As the router's own default; a prompt of 128k tokens is below 1 MiB."""

CHANNEL_OPTIONS: tuple[tuple[str, int | str], ...] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A dead peer is noticed within 40 s even while a request waits in a queue and nothing flows.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A server that comes back is found within two seconds; gRPC's own backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_retries", 0),  # retries are ours: they know the reason and the deadline
    ("grpc.primary_user_agent", "readahead-client"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files for a server that speaks TLS."""

    authority_file: str = ""
    """Who signed the server's certificate. Empty: gRPC's built-in authorities."""
    certificate_file: str = ""
    """The client's own certificate, for a server that asks for one."""
    key_file: str = ""

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file go together")

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files.

        Raises:
            OSError: one of them cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.authority_file),
            private_key=_read(self.key_file),
            certificate_chain=_read(self.certificate_file),
        )


READY_POLL_S = 0.1
"""Between two looks at a server that starts: a start takes seconds, a look a millisecond."""


def address_of(target: str) -> str:
    """host:port, from "host:port" or "grpc://host:port"."""
    address = target.removeprefix("grpc://").rstrip("/")
    _, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        raise ValueError(f"a target is host:port or grpc://host:port, got {target!r}")
    return address


def _read(file: str) -> bytes | None:
    return Path(file).read_bytes() if file else None
