"""What parking relies on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_QUEUE = "vllm.v1.core.sched.request_queue:FCFSRequestQueue"

PARKING_INTERNALS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.PARKING,
        owner=_SCHEDULER,
        names=(
            "finish_requests(request_ids, finished_status)",
            "update_from_output(scheduler_output, model_runner_output)",
            "has_finished_requests()",
            "get_num_unfinished_requests()",
        ),
        wording=("return len(self.requests) > num_running + num_waiting",),
        where=("engine/vllm_parking.py",),
        use="overridden: a parked request can be aborted, may end by a late token, and keeps an "
        "idle engine awake only where a plan is to bring it back",
        recheck="finish_requests takes a request that is in no queue",
    ),
    Internal(
        feature=Feature.PARKING,
        owner=_SCHEDULER,
        names=(
            "requests",
            "running",
            "waiting",
            "kv_cache_manager",
            "connector",
            "finished_req_ids",
            "deferred_frees",
            "prev_step_scheduled_req_ids",
            "_pause_state",
            "_preempt_request(request, timestamp, drop_stale_output)",
            "get_request_counts()",
        ),
        wording=(
            "self.waiting.prepend_request(request)",
            "self.deferred_frees.append((self.sched_step_seq, blocks))",
        ),
        where=("engine/vllm_parking.py",),
        use="a park is a preemption that leaves the request in no queue",
        recheck="_preempt_request still puts it first in waiting; deferred_frees has pairs of a "
        "step and the blocks that it still may write",
    ),
    Internal(
        feature=Feature.PARKING,
        owner=_QUEUE,
        names=("remove_requests(requests)", "prepend_request(request)"),
        where=("engine/vllm_parking.py",),
        use="out of the queue at the park, back in front at the resume",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.core.kv_cache_manager:KVCacheManager",
        names=("get_block_ids(request_id)",),
        where=("engine/vllm_parking.py",),
        use="the blocks that are copied to the host",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.request:RequestStatus",
        names=("RUNNING",),
        where=("engine/vllm_parking.py",),
        use="only a running request is parked",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.request:Request",
        names=(
            "request_id",
            "status",
            "num_computed_tokens",
            "num_in_flight_tokens",
            "kv_transfer_params",
            "num_tokens",
            "is_finished()",
        ),
        where=("engine/vllm_parking.py",),
        use="how much there is to copy; whether tokens may come yet, or one has ended it",
        recheck="with speculation num_computed_tokens may count rejected drafts",
    ),
    Internal(
        feature=Feature.PARKING,
        owner=_SCHEDULER,
        names=("kv_cache_config",),
        where=("engine/vllm_parking.py",),
        use="what the cache is made of",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.kv_cache_interface:KVCacheConfig",
        names=("kv_cache_groups",),
        where=("engine/vllm_parking.py",),
        use="how many bytes a block has, and so how long a copy takes",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.kv_cache_interface:KVCacheGroupSpec",
        names=("layer_names", "kv_cache_spec"),
        where=("engine/vllm_parking.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.PARKING,
        owner="vllm.v1.kv_cache_interface:KVCacheSpec",
        names=("page_size_bytes",),
        where=("engine/vllm_parking.py",),
        use="the same",
        recheck="it is that of one layer, but for a spec that has kv_cache_specs",
    ),
)
