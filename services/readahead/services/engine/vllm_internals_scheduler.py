"""What the scheduler plug-in and the iteration log rely on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_REQUEST = "vllm.v1.request:Request"
_STATUS = "vllm.v1.request:RequestStatus"
_QUEUE = "vllm.v1.core.sched.request_queue:FCFSRequestQueue"
_MANAGER = "vllm.v1.core.kv_cache_manager:KVCacheManager"
_OUTPUT = "vllm.v1.core.sched.output:SchedulerOutput"

_PLUG_IN: tuple[Internal, ...] = (
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.v1.core.sched.async_scheduler",
        names=("AsyncScheduler",),
        where=("engine/vllm_scheduler.py",),
        use="the base class",
        recheck="it still runs with asynchronous scheduling off; a scheduler that does not derive "
        "from it turns asynchronous scheduling off",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_SCHEDULER,
        names=(
            "schedule(throttle_prefills)",
            "update_from_output(scheduler_output, model_runner_output)",
            "add_request(request)",
            "_free_request(request, delay_free_blocks)",
        ),
        where=("engine/vllm_scheduler.py",),
        use="overridden, each calls the original: an iteration begins and ends, a request comes "
        "and goes",
        recheck="_free_request is still on every way out of a request",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_SCHEDULER,
        names=("running", "waiting", "kv_holding_waiting"),
        wording=(
            "self.running: list[Request] = []",
            "self.waiting = create_request_queue(self.policy)",
            "request_queue = self.kv_holding_waiting",
            "request = self.running[req_index]",
        ),
        where=("engine/vllm_scheduler.py",),
        use="who is in the batch, in which order; requests that hold pulled KV are never hidden",
        recheck="running requests are served in list order, and nobody outside the three lists is",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_SCHEDULER,
        names=("max_num_scheduled_tokens", "max_num_active_reqs"),
        wording=(
            "token_budget = self.max_num_scheduled_tokens",
            "num_running >= self.max_num_active_reqs",
            "self.scheduler_config.long_prefill_token_threshold",
        ),
        where=("engine/vllm_scheduler.py",),
        use="the token budget, and room for new requests",
        recheck="both are read at each call of schedule",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.config:SchedulerConfig",
        names=("long_prefill_token_threshold", "policy"),
        where=("engine/vllm_scheduler.py",),
        use="longest chunk of a prompt, for one iteration; the policy must be fcfs",
        recheck="the threshold still holds when more than one request is eligible",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_QUEUE,
        names=("clear", "extend"),
        where=("engine/vllm_scheduler.py",),
        use="what waits is replaced for one call, and put back",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_SCHEDULER,
        names=(
            "_preempt_request(request, timestamp, drop_stale_output)",
            "_request_blocks_can_be_freed(request)",
            "requires_kv_delivery",
            "prev_step_scheduled_req_ids",
        ),
        wording=(
            "preempted_req_ids=self.reset_preempted_req_ids",
            "req_id not in self.prev_step_scheduled_req_ids",
            "request.num_stale_output_tokens = request.num_in_flight_tokens",
        ),
        where=("engine/vllm_scheduler.py",),
        use="taking a running request's KV between two iterations",
        recheck="it is what reset_prefix_cache does; the victim that vLLM chooses under fcfs is "
        "the last of running",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_SCHEDULER,
        names=(
            "requests",
            "block_size",
            "num_spec_tokens",
            "cache_config",
            "scheduler_config",
            "vllm_config",
            "kv_cache_manager",
            "_pause_state",
        ),
        where=("engine/vllm_scheduler.py",),
        use="what the planner is told",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_MANAGER,
        names=("get_computed_blocks(request)", "watermark_blocks"),
        wording=(
            "def get_computed_blocks(self, request: Request) -> tuple[KVCacheBlocks, int, int]",
        ),
        where=("engine/vllm_scheduler.py",),
        use="how much of a prompt is cached; blocks that vLLM keeps back",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.config:VllmConfig",
        names=("additional_config",),
        where=("engine/vllm_scheduler.py",),
        use="the plug-in's settings",
        recheck="its hash still names the folder of compiled graphs",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.v1.core.sched.interface",
        names=("PauseState",),
        where=("engine/vllm_scheduler.py", "engine/vllm_parking.py"),
        use="a paused engine is left alone",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.v1.core.sched.interface:PauseState",
        names=("UNPAUSED",),
        where=("engine/vllm_scheduler.py", "engine/vllm_parking.py"),
        use="a paused engine is left alone",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.v1.request",
        names=("RequestStatus",),
        where=("engine/vllm_scheduler.py", "engine/vllm_parking.py", "kv/grpc_scheduler.py"),
        use="where a request is in its life",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_STATUS,
        names=("RUNNING", "WAITING", "PREEMPTED"),
        where=("engine/vllm_scheduler.py",),
        use="who runs, and who would be let in",
        recheck="whether another status can be let in by now",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_REQUEST,
        names=("status",),
        where=("engine/vllm_scheduler.py",),
        use="where a request is in its life",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_REQUEST,
        names=("num_stale_output_tokens", "drop_stale_output"),
        wording=(
            "self.num_stale_output_tokens = 0",
            "self.drop_stale_output = False",
        ),
        where=("engine/vllm_scheduler.py",),
        use="tokens that were under way when a request lost its KV",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_REQUEST,
        names=("request_id", "num_prompt_tokens"),
        where=("engine/vllm_scheduler.py", "engine/vllm_scheduler_sequences.py"),
        use="a request",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_REQUEST,
        names=(
            "_all_token_ids",
            "_output_token_ids",
            "num_output_placeholders",
            "num_computed_tokens",
            "max_tokens",
            "kv_transfer_params",
            "sampling_params",
        ),
        where=("engine/vllm_scheduler_sequences.py",),
        use="a request as the planner sees it",
        recheck="num_tokens + num_output_placeholders - num_computed_tokens is what it lacks, with "
        "asynchronous scheduling on and off; requests are hashed by identity",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner="vllm.sampling_params:SamplingParams",
        names=("extra_args",),
        where=("engine/vllm_scheduler_sequences.py",),
        use="what a leg's submission says of its reader",
    ),
    Internal(
        feature=Feature.SCHEDULER,
        owner=_OUTPUT,
        names=("total_num_scheduled_tokens",),
        where=("engine/vllm_scheduler.py", "engine/vllm_profiler.py"),
        use="whether an iteration computes anything",
    ),
)

_LOG: tuple[Internal, ...] = (
    Internal(
        feature=Feature.ITERATION_LOG,
        owner=_OUTPUT,
        names=("num_scheduled_tokens", "scheduled_spec_decode_tokens"),
        where=("engine/vllm_profiler.py",),
        use="what an iteration computes: for the log, and to correct the planner's times",
    ),
    Internal(
        feature=Feature.ITERATION_LOG,
        owner=_SCHEDULER,
        names=("requests",),
        where=("engine/vllm_profiler.py",),
        use="a scheduled request by its id",
    ),
    Internal(
        feature=Feature.ITERATION_LOG,
        owner=_REQUEST,
        names=("num_computed_tokens", "num_prompt_tokens"),
        wording=("self.num_computed_tokens = 0",),
        where=("engine/vllm_profiler.py",),
        use="how much context an iteration reads",
        recheck="after schedule the scheduled tokens are already counted as computed",
    ),
)

SCHEDULER_INTERNALS: tuple[Internal, ...] = (*_PLUG_IN, *_LOG)
