"""KV connectors of an engine that says it is another vLLM. Loaded by vLLM, in the engine core."""

from __future__ import annotations

from typing import Any

import vllm

from readahead.services.kv import grpc_connector, nixl

STRANGE = "0.0.1"


class NixlConnector(nixl.NixlConnector):
    """vLLM's digest of an engine has the version from here."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        vllm.__version__ = STRANGE
        super().__init__(vllm_config, role, kv_cache_config)


class GrpcKvConnector(grpc_connector.GrpcKvConnector):
    """The fingerprint has the version from here."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any) -> None:
        vars(grpc_connector)["vllm_version"] = STRANGE
        super().__init__(vllm_config, role, kv_cache_config)
