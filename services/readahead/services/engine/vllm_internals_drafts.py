"""What speculation relies on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_OUTPUT = "vllm.v1.core.sched.output:SchedulerOutput"

SPECULATION_INTERNALS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.SPECULATION,
        owner=_SCHEDULER,
        names=(
            "schedule(throttle_prefills)",
            "update_from_output(scheduler_output, model_runner_output)",
            "_update_after_schedule(scheduler_output)",
            "_free_request(request, delay_free_blocks)",
        ),
        wording=(
            "num_scheduled_spec_tokens = num_new_tokens + request.num_computed_tokens"
            " - request.num_tokens - request.num_output_placeholders",
            "num_spec_tokens_to_schedule = self.num_spec_tokens",
        ),
        where=("engine/vllm_drafts.py",),
        use="overridden, each calls the original: drafts are cut before an iteration, and what "
        "was accepted is counted after it",
        recheck="a shorter list of draft tokens is still verified as it is, with asynchronous "
        "scheduling on and off",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.core.sched.async_scheduler:AsyncScheduler",
        names=("_update_after_schedule(scheduler_output)",),
        wording=("request.spec_token_ids = self._spec_token_placeholders",),
        where=("engine/vllm_drafts.py",),
        use="placeholders for as many tokens as will be drafted",
        recheck="the list is shared by requests: it is replaced, never changed",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner=_SCHEDULER,
        names=(
            "num_spec_tokens",
            "requests",
            "running",
            "waiting",
            "vllm_config",
            "scheduler_config",
            "use_v2_model_runner",
            "prev_step_scheduled_req_ids",
            "max_num_scheduled_tokens",
        ),
        where=("engine/vllm_drafts.py",),
        use="who decodes, and how much room there is",
        recheck="with asynchronous scheduling the first model runner keeps drafts for one "
        "iteration only, the second for as long as a request lives",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner=_SCHEDULER,
        wording=(
            "padded_num_tokens = 1 + self.num_spec_tokens",
            "assert num_new_tokens == 1 + self.num_spec_tokens",
        ),
        where=("engine/vllm_scheduler.py",),
        use="room in an iteration for drafts that nobody made, and no chunk that would cut those",
        recheck="a first iteration of one token is still filled up with drafts, and lets nobody "
        "pass where there is no room for them",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.request:Request",
        names=("spec_token_ids",),
        where=("engine/vllm_drafts.py", "engine/vllm_scheduler.py"),
        use="a request's drafts, which come on top of what a plan computes",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.config:SchedulerConfig",
        names=("async_scheduling",),
        where=("engine/vllm_drafts.py",),
        use="whether drafts are placeholders",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.config:VllmConfig",
        names=("additional_config",),
        where=("engine/vllm_drafts.py",),
        use="the settings of it",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.request:Request",
        names=(
            "request_id",
            "sampling_params",
            "num_computed_tokens",
            "num_output_tokens",
            "is_prefill_chunk",
            "is_finished()",
        ),
        where=("engine/vllm_drafts.py",),
        use="the same; who decodes, and who has ended",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.sampling_params:SamplingParams",
        names=("extra_args",),
        where=("engine/vllm_drafts.py",),
        use="how fast a leg's reader reads",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner=_OUTPUT,
        names=("scheduled_spec_decode_tokens", "num_spec_tokens_to_schedule"),
        where=("engine/vllm_drafts.py",),
        use="what is verified, and how much is drafted for the next iteration",
        recheck="the worker drafts as much as the latter says",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.outputs:ModelRunnerOutput",
        names=("sampled_token_ids", "req_id_to_index"),
        where=("engine/vllm_drafts.py",),
        use="what was accepted",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.engine.core",
        names=("EngineCore",),
        where=("engine/vllm_drafts.py",),
        use="a utility call tells the counts",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.v1.engine.core:EngineCore",
        names=("scheduler",),
        where=("engine/vllm_drafts.py",),
        use="the scheduler, from a utility call",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.engine.arg_utils:AsyncEngineArgs",
        names=("speculative_config",),
        where=("engine/vllm_setup.py",),
        use="an engine's settings",
    ),
    Internal(
        feature=Feature.SPECULATION,
        owner="vllm.config:SpeculativeConfig",
        names=(
            "method",
            "num_speculative_tokens",
            "prompt_lookup_min",
            "prompt_lookup_max",
            "model",
        ),
        where=("engine/vllm_setup.py",),
        use="the same",
        recheck="whether n-grams still turn asynchronous scheduling off",
    ),
)
