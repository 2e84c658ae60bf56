"""The parts of vLLM that are not public and that we rely on, checked at each start.

docs/reference/vllm-internals.md says what each is used for.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from vllm import __version__ as vllm_version
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.nixl import base_scheduler, base_worker, metadata
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import (
    NixlBaseConnector,
    NixlPullConnector,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_scheduler import (
    NixlPullConnectorScheduler,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker import NixlPullConnectorWorker
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.stats import NixlKVConnectorStats
from vllm.model_executor.models import registry
from vllm.outputs import RequestOutput
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.core.sched.request_queue import FCFSRequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core import EngineCore
from vllm.v1.engine.core_client import AsyncMPClient, MPClient
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.metrics.stats import RequestStateStats, SchedulerStats
from vllm.v1.request import Request, RequestStatus

PINNED_VERSION = "0.32.0"

_ATTRIBUTES: tuple[tuple[object, tuple[str, ...]], ...] = (
    (AsyncLLM, ("errored", "generate", "shutdown", "from_vllm_config")),
    (AsyncMPClient, ("call_utility_async",)),
    (
        Scheduler,
        (
            "get_request_counts",
            "schedule",
            "update_from_output",
            "add_request",
            "_free_request",
            "_preempt_request",
            "_request_blocks_can_be_freed",
        ),
    ),
    (AsyncScheduler, ("schedule", "update_from_output")),
    (BlockPool, ("get_num_free_blocks",)),
    (KVCacheManager, ("get_computed_blocks",)),
    (FCFSRequestQueue, ("clear", "extend")),
    (PauseState, ("UNPAUSED",)),
    (RequestStatus, ("RUNNING", "WAITING", "PREEMPTED")),
    (NixlBaseConnector, ("update_connector_output",)),
    (NixlPullConnector, ("start_load_kv",)),
    (
        NixlPullConnectorScheduler,
        ("request_finished", "update_connector_output", "build_connector_meta"),
    ),
    (NixlPullConnectorWorker, ("start_load_kv", "_get_new_notifs", "_handle_heartbeat")),
    (registry, ("ModelRegistry", "_LazyRegisteredModel", "_RegisteredModel")),
    (registry._LazyRegisteredModel, ("load_model_cls",)),
    (registry._RegisteredModel, ("from_model_cls",)),
)

_IN_SOURCE: tuple[tuple[object, tuple[str, ...]], ...] = (
    (
        Scheduler,
        (
            "self.connector = ",
            "self.kv_cache_manager = ",
            "self.vllm_config = ",
            "self.requests",
            "finished_sending",
            "self.running: list[Request] = []",
            "self.waiting = create_request_queue(",
            "self.kv_holding_waiting = create_request_queue(",
            "self.prev_step_scheduled_req_ids: set[str]",
            "self.max_num_active_reqs = ",
            "self.max_num_scheduled_tokens = ",
            "token_budget = self.max_num_scheduled_tokens",
            "num_running >= self.max_num_active_reqs",
            "self.scheduler_config.long_prefill_token_threshold",
            "self._pause_state: PauseState",
            "self.requires_kv_delivery = ",
            "self.num_spec_tokens = ",
            "self.block_size = block_size",
            "preempted_req_ids=self.reset_preempted_req_ids",
        ),
    ),
    (KVCacheManager, ("self.block_pool = ", "self.watermark_blocks = ")),
    (
        Request,
        (
            "self._all_token_ids",
            "self._output_token_ids",
            "self.num_output_placeholders = ",
            "self.num_stale_output_tokens = ",
            "self.drop_stale_output = ",
            "self.num_computed_tokens = ",
            "self.num_prompt_tokens = ",
            "self.kv_transfer_params",
        ),
    ),
    (EngineCore, ("self.scheduler",)),
    (
        AsyncLLM,
        (
            "self.engine_core = ",
            "self.model_config = ",
            "self.output_handler: ",
            "output_processor.propagate_error(",
        ),
    ),
    (MPClient, ("self.resources = BackgroundResources(ctx=",)),
    (NixlBaseConnector, ("self.connector_scheduler", "self.connector_worker")),
    (
        base_worker.NixlBaseConnectorWorker,
        (
            "self._reqs_to_send: dict[ReqId, float]",
            "self._reqs_to_process: set[ReqId]",
            "self.consumer_notification_counts_by_req",
            "self.expected_consumer_notifications_by_req",
            "self._get_new_notifs()",
            "os.sched_setaffinity(0, rsv_cores_for_kv)",
        ),
    ),
    (base_scheduler.NixlBaseConnectorScheduler, ('"kv_lease_duration"',)),
    (metadata.NixlConnectorMetadata, ("self.reqs_to_send",)),
    (NixlKVConnectorStats, ('"bytes_transferred"',)),
    (InputProcessor, ('f"{request.external_req_id}-{random_uuid():.8}"',)),
    (RequestStateStats, ("queued_ts", "scheduled_ts", "first_token_ts")),
    (SchedulerStats, ("num_running_reqs", "num_skipped_waiting_reqs", "kv_cache_usage")),
    (RequestOutput, ("self.kv_transfer_params", "self.metrics")),
    (VllmConfig, ("cache_config", "scheduler_config")),
)
"""Names that exist only on instances, looked for in the class's source."""


def check_internals() -> None:
    """Checks that this vLLM is the one relied on.

    Raises:
        RuntimeError: it lacks something; names it, and the version to install.
    """
    missing = sorted(_missing())
    if missing:
        raise RuntimeError(
            f"vLLM {vllm_version} lacks {', '.join(missing)}, which Readahead relies on. "
            f"Install vLLM {PINNED_VERSION}."
        )


def _missing() -> Iterator[str]:
    for owner, names in _ATTRIBUTES:
        yield from (f"{_name(owner)}.{name}" for name in names if not hasattr(owner, name))
    for owner, fragments in _IN_SOURCE:
        source = inspect.getsource(owner)  # type: ignore[arg-type]  # a class each
        yield from (f"{_name(owner)}: {each}" for each in fragments if each not in source)


def _name(owner: object) -> str:
    return str(getattr(owner, "__name__", owner))
