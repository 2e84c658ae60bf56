"""The gRPC connector's settings, and what its peers must match, from vLLM's configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from readahead.runtime.config import PeerTlsConfig, TlsConfig
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.grpc_wire import Fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcKvSettings:
    """Of one engine's connector, both sides."""

    host: str
    port: int
    """0: a free one."""
    lease_s: float
    host_bytes: int
    engine_id: str
    tls: TlsConfig
    peer_tls: PeerTlsConfig

    @classmethod
    def of(cls, vllm_config: Any) -> GrpcKvSettings:
        """From vLLM's configuration, where `connector_options` put them."""
        transfer = vllm_config.kv_transfer_config
        options: Mapping[str, Any] = transfer.kv_connector_extra_config["readahead"]
        return cls(
            host=options["host"],
            port=options["port"],
            lease_s=options["lease_s"],
            host_bytes=options["host_bytes"],
            engine_id=transfer.engine_id,
            tls=TlsConfig(**options["tls"]),
            peer_tls=PeerTlsConfig(**options["peer_tls"]),
        )


def fingerprint(
    vllm_config: Any, memory: BlockMemory, *, engine_version: str, rank: int
) -> Fingerprint:
    """What an engine's peers must match."""
    model = vllm_config.model_config
    details = {
        name: value
        for name, value in model.hf_config.to_dict().items()
        if not name.startswith("_") and name != "transformers_version"
    }
    text = json.dumps(details, sort_keys=True, default=str)
    name = model.served_model_name
    return Fingerprint(
        engine_version=engine_version,
        model=f"{name if isinstance(name, str) else name[0]}:"
        f"{hashlib.sha256(text.encode()).hexdigest()[:16]}",
        block_tokens=vllm_config.cache_config.block_size,
        block_bytes=memory.block_bytes,
        dtype=memory.dtype,
        layout=memory.layout,
        ranks=vllm_config.parallel_config.tensor_parallel_size,
        rank=rank,
    )
