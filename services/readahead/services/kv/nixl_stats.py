"""What the NIXL connector counts beside vLLM's own figures, on vLLM's way to the front end."""

from __future__ import annotations

from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.nixl.stats import (
    NixlKVConnectorStats,
    NixlPromMetrics,
)
from vllm.v1.metrics.utils import create_metric_per_engine

from readahead.core.errors import Reason

FAILURES = "failure_reasons"
FALLBACKS = "grpc_fallbacks"
GRPC_TRANSFERS, GRPC_BYTES = "grpc_transfers", "grpc_bytes"
_NAMES = (FAILURES, FALLBACKS, GRPC_TRANSFERS, GRPC_BYTES)


class HandoverStats(NixlKVConnectorStats):  # type: ignore[misc]  # vLLM is untyped here
    """One step's. Lists, since vLLM joins those of ranks and steps."""

    def reset(self) -> None:
        """Empties it."""
        super().reset()
        self.data |= {name: [] for name in _NAMES}

    def is_empty(self) -> bool:
        """Iff there is nothing to tell."""
        return bool(super().is_empty()) and not any(self.data[name] for name in _NAMES)

    def record_failure(self, reason: Reason) -> None:
        """NIXL did not bring a handover."""
        self.data[FAILURES].append(reason.value)

    def record_fallback(self) -> None:
        """A handover is pulled over gRPC instead."""
        self.data[FALLBACKS].append(1)

    def record_grpc(self, transfers: int, kv_bytes: int) -> None:
        """So much came over gRPC."""
        if transfers:
            self.data[GRPC_TRANSFERS].append(transfers)
            self.data[GRPC_BYTES].append(kv_bytes)


class HandoverMetrics(NixlPromMetrics):  # type: ignore[misc]  # vLLM is untyped here
    """NIXL's metrics, and how often gRPC stood in.

    Under vLLM's prefix, by which vLLM clears its metrics away before another engine starts.
    """

    def __init__(
        self,
        vllm_config: Any,
        metric_types: Any,
        labelnames: list[str],
        per_engine_labelvalues: dict[int, list[object]],
    ) -> None:
        super().__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)
        counter = self._counter_cls(
            name="vllm:nixl_num_grpc_fallbacks",
            documentation="Number of KV cache transfers that gRPC made in NIXL's place.",
            labelnames=labelnames,
        )
        self._fallbacks = create_metric_per_engine(counter, per_engine_labelvalues)

    def observe(self, transfer_stats_data: dict[str, Any], engine_idx: int = 0) -> None:
        """Takes one step's."""
        super().observe(transfer_stats_data, engine_idx)
        if count := len(transfer_stats_data[FALLBACKS]):
            self._fallbacks[engine_idx].inc(count)
