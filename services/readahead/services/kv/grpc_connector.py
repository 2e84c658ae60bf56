"""Our KV connector for vLLM: blocks go over gRPC streams, by way of a copy in host memory.

Imported in the engine core's process (vLLM's `kv_connector_module_path`). vLLM makes one connector
for the scheduler and one in each worker process; here each has a side that does the work.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm import __version__ as vllm_version
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import KVCacheConfig

from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.core_calls import allow_amx, die_with_front_end
from readahead.services.kv.grpc_orders import Door, StepOrders, StepReport
from readahead.services.kv.grpc_scheduler import GrpcScheduler
from readahead.services.kv.grpc_settings import GrpcKvSettings, fingerprint
from readahead.services.kv.grpc_worker import GrpcWorker


class GrpcKvConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]  # vLLM is untyped
    """What `kv_connector` names. One is made per side."""

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        if len(kv_cache_config.kv_cache_groups) != 1:
            raise ValueError(
                "the gRPC transport moves KV caches of one group, and this model has "
                f"{len(kv_cache_config.kv_cache_groups)}: use kv.backend nixl"
            )
        if vllm_config.parallel_config.pipeline_parallel_size > 1:
            raise ValueError("the gRPC transport knows no pipeline parallelism: use nixl")
        self._settings = GrpcKvSettings.of(vllm_config)
        self._door: Door | None = None
        self.connector_scheduler: GrpcScheduler | None = None
        self.connector_worker: GrpcWorker | None = None
        if role == KVConnectorRole.SCHEDULER:
            die_with_front_end()
            self.connector_scheduler = GrpcScheduler(
                self._settings, block_tokens=vllm_config.cache_config.block_size
            )
        elif current_platform.is_cpu():
            allow_amx()

    @property
    def requires_kv_delivery(self) -> bool:
        """A preempted request's blocks are saved before they are overwritten."""
        return False

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: VllmConfig) -> str | None:
        """Blocks first, as NIXL asks for; latent attention has but one layout."""
        return None if vllm_config.model_config.use_mla else "LBHNC"

    def get_loaded_kv_cache_group_ids(self, request: Any) -> tuple[int, ...]:
        """All: the blocks that are loaded are the request's own."""
        groups: tuple[int, ...] = self._kv_cache_config.transfer_group_ids
        return groups

    # Scheduler side

    def set_xfer_handshake_metadata(self, metadata: dict[int, Any]) -> None:
        """Where the ranks' servers are."""
        self._scheduler.open(metadata)

    def on_new_request(self, request: Any) -> None:
        """A request has come."""
        self._scheduler.on_new_request(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """Tokens that can be loaded, and that they load between steps."""
        tokens = self._scheduler.matched_tokens(request, num_computed_tokens)
        return tokens, tokens > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """The request has blocks to load into."""
        self._scheduler.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> StepOrders:
        """The step's orders."""
        orders = self._scheduler.take_orders()
        orders.is_idle = not scheduler_output.total_num_scheduled_tokens
        return orders

    def update_connector_output(self, connector_output: Any) -> None:
        """The step's results."""
        self._scheduler.take_report(
            connector_output.kv_connector_worker_meta, connector_output.finished_recving or ()
        )

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        """The blocks can be freed; with what another engine needs to go on."""
        return False, self._scheduler.finished(request, block_ids)

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """The same; there is one group."""
        return self.request_finished(request, block_ids[0])

    def has_pending_push_work(self) -> bool:
        """Whether a step is needed although no request is."""
        return self._scheduler.has_orders

    # Worker side

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """The cache exists: from here on nothing forks, and threads and sockets can be made."""
        memory = BlockMemory(kv_caches, blocks=self._kv_cache_config.num_blocks)
        mark = fingerprint(
            self._vllm_config,
            memory,
            engine_version=vllm_version,
            rank=get_tensor_model_parallel_rank(),
        )
        self.connector_worker = GrpcWorker(self._settings, memory, mark)
        self._door = self.connector_worker.start()

    def get_handshake_metadata(self) -> Door | None:
        """Where this rank's server is."""
        return self._door

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """Saves what the step may overwrite."""
        self._worker.before_forward(kv_connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Starts the step's loads."""
        self._worker.load(self._get_connector_metadata())

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Requests whose load has ended."""
        is_idle = self._get_connector_metadata().is_idle
        return None, self._worker.take_received(may_wait=is_idle) or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks that must be computed after all."""
        return self._worker.take_bad_blocks()

    def build_connector_worker_meta(self) -> StepReport | None:
        """What the scheduler side must learn."""
        return self._worker.take_report()

    def shutdown(self) -> None:
        """The process ends."""
        if self.connector_worker is not None:
            self.connector_worker.close()

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing is loaded layer by layer."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing is saved layer by layer."""

    def wait_for_save(self) -> None:
        """Saves are done when they return."""

    @property
    def _scheduler(self) -> GrpcScheduler:
        assert self.connector_scheduler is not None
        return self.connector_scheduler

    @property
    def _worker(self) -> GrpcWorker:
        assert self.connector_worker is not None
        return self.connector_worker
