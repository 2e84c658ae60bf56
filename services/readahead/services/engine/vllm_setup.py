"""vLLM's settings from ours, and what a worker keeps of its statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vllm.config import KVTransferConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.models.registry import (
    ModelRegistry,
    _LazyRegisteredModel,
    _RegisteredModel,
)
from vllm.platforms import current_platform
from vllm.v1.metrics.loggers import StatLoggerBase

from readahead.core.cluster import Role, WorkerLoad
from readahead.services.config import EngineConfig, KvConfig, SpeculationConfig
from readahead.services.engine import vllm_environment
from readahead.services.kv.grpc_options import connector_options
from readahead.services.kv.nixl_probe import settled

_CPU_KV_BYTES = 64 << 20
"""Enough for 32,768 tokens of the tiny model, and small beside what an engine needs anyway."""

_SCHEDULER = "readahead.services.engine.vllm_scheduler.ReadaheadScheduler"

_DRAFTING = "readahead.services.engine.vllm_drafts.DraftingScheduler"

NGRAM_TOKENS = (2, 4)
"""From how many to how many of the last tokens are looked up. Two: a single word that stood before
is mostly followed by another one; the acceptance that is measured cuts what is left."""

_COPYING = "GrpcKvConnector"
"""The connector that keeps copies in host memory."""

_KV_ROLES = {Role.PREFILL: "kv_producer", Role.DECODE: "kv_consumer"}


def vllm_config(config: EngineConfig, kv: KvConfig, role: Role) -> VllmConfig:
    """The checked and completed settings of one engine."""
    arguments: dict[str, Any] = {
        "model": config.model_path,
        "served_model_name": [model_name(config)],
        "use_tqdm_on_load": False,
        "dtype": config.dtype,
        "max_num_seqs": config.requests_max,
        "max_num_batched_tokens": config.batch_tokens_max,
        "tensor_parallel_size": config.tensor_parallel_size,
        "enforce_eager": config.is_eager,
        "gpu_memory_utilization": config.gpu_memory_share,
        "kv_transfer_config": _kv_transfer_config(kv, role),
        "scheduler_cls": _DRAFTING if config.speculation.method else _SCHEDULER,
        "additional_config": _additional_config(config),
        "speculative_config": speculative_config(config.speculation),
    }
    if config.context_tokens_max:
        arguments["max_model_len"] = config.context_tokens_max
    if config.kv_bytes:
        arguments["kv_cache_memory_bytes"] = config.kv_bytes
    if current_platform.is_cpu():
        vllm_environment.use_one_process_for_core_and_worker()
        preload_model(config.model_path)
        if config.speculation.model_path:
            preload_model(config.speculation.model_path)
        arguments["enforce_eager"] = True
        arguments["distributed_executor_backend"] = "uni"
        arguments.setdefault("kv_cache_memory_bytes", _CPU_KV_BYTES)
    with vllm_environment.start_method_kept():
        return AsyncEngineArgs(**arguments).create_engine_config()


def model_name(config: EngineConfig) -> str:
    """The name that callers use."""
    return config.model_name or Path(config.model_path).resolve().name


def _additional_config(config: EngineConfig) -> dict[str, Any]:
    """For our scheduler; names as in `vllm_scheduler`, `vllm_drafts` and `vllm_profiler`."""
    scheduler = {
        "policy": config.policy,
        "knobs": dict(config.policy_knobs),
        "planner_budget_s": config.planner_budget_s,
        "delivery_lag_s": config.delivery_lag_s,
        "latency_profile": config.latency_profile,
    }
    additional: dict[str, Any] = {"readahead_scheduler": scheduler}
    if config.speculation.method:
        additional["readahead_drafts"] = {"is_adaptive": config.speculation.is_adaptive}
    if config.iteration_log:
        additional["readahead_iteration_log"] = config.iteration_log
    return additional


def speculative_config(config: SpeculationConfig) -> dict[str, Any] | None:
    """vLLM's own settings of it; None where nothing is drafted."""
    if not config.method:
        return None
    speculative: dict[str, Any] = {
        "method": config.method,
        "num_speculative_tokens": config.draft_tokens_max,
    }
    if config.method == "ngram":
        return speculative | {
            "prompt_lookup_min": NGRAM_TOKENS[0],
            "prompt_lookup_max": NGRAM_TOKENS[1],
        }
    return speculative | {"model": config.model_path}


def _kv_transfer_config(kv: KvConfig, role: Role) -> KVTransferConfig:
    buffer: dict[str, str] = {"kv_buffer_device": "cpu"} if current_platform.is_cpu() else {}
    kv = settled(kv)
    if kv.backend == "grpc":
        return KVTransferConfig(
            kv_connector=_COPYING,
            kv_connector_module_path="readahead.services.kv.grpc_connector",
            # Each worker also brings back what it parked.
            kv_role="kv_both",
            kv_connector_extra_config=connector_options(kv),
            kv_load_failure_policy="recompute",
            **buffer,
        )
    module, options = "nixl", {}
    if kv.backend == "auto":
        module, options = "nixl_or_grpc", connector_options(kv)
    return KVTransferConfig(
        kv_connector="NixlConnector",
        kv_connector_module_path=f"readahead.services.kv.{module}",
        kv_role=_KV_ROLES[role],
        kv_connector_extra_config={"kv_lease_duration": kv.lease_s, **options},
        # A decode engine that cannot pull a KV cache computes it again: identical output.
        kv_load_failure_policy="recompute",
        **buffer,
    )


def keeps_copies(config: VllmConfig) -> bool:
    """Whether requests can be parked, and moved while they generate; with `auto` it depends on
    what has come up."""
    transfer = config.kv_transfer_config
    return transfer is not None and transfer.kv_connector == _COPYING


def preload_model(model_path: str) -> None:
    """Imports the model's class here.

    vLLM otherwise starts a process of its own to look at the class, which imports all of vLLM
    again, so as not to touch a GPU in the front end. On a CPU there is nothing to touch.
    """
    config_file = Path(model_path) / "config.json"
    if not config_file.is_file():
        return
    architectures = json.loads(config_file.read_text()).get("architectures") or []
    for name in architectures:
        model = ModelRegistry.models.get(name)
        if isinstance(model, _LazyRegisteredModel):
            ModelRegistry.models[name] = _RegisteredModel.from_model_cls(model.load_model_cls())


class LoadLogger(StatLoggerBase):  # type: ignore[misc]  # vLLM is untyped here
    """Keeps the load of the last step. vLLM makes one per engine core and calls it each step."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        self._kv_blocks = usable_blocks(vllm_config)
        self.load = WorkerLoad(running=0, waiting=0, kv_blocks_free=self._kv_blocks)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Takes one step's statistics."""
        if scheduler_stats is None:
            return
        free_share = 1 - scheduler_stats.kv_cache_usage
        self.load = WorkerLoad(
            running=scheduler_stats.num_running_reqs,
            waiting=scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs,
            kv_blocks_free=round(free_share * self._kv_blocks),
        )

    def log_engine_initialized(self) -> None:
        """Nothing to say."""


def usable_blocks(config: VllmConfig) -> int:
    """KV blocks that requests can use: all but the null block, which pads block tables."""
    return int(config.cache_config.num_gpu_blocks) - 1
