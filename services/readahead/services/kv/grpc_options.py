"""How a worker's settings reach the gRPC connector: through vLLM's own configuration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from readahead.services.config import KvConfig


def connector_options(kv: KvConfig) -> dict[str, Any]:
    """vLLM's `kv_connector_extra_config` for an engine with these settings."""
    return {
        "readahead": {
            "host": kv.side_channel_host,
            # NIXL's own port comes first where both are at work.
            "port": kv.side_channel_port and kv.side_channel_port + (kv.backend == "auto"),
            "lease_s": kv.lease_s,
            "host_bytes": kv.host_bytes,
            "tls": asdict(kv.tls),
            "peer_tls": asdict(kv.peer_tls),
        }
    }
