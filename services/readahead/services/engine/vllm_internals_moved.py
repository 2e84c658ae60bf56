"""What live migration relies on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

MIGRATION_INTERNALS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.v1.engine.detokenizer",
        names=("IncrementalDetokenizer",),
        where=("engine/vllm_moved.py",),
        use="text and stop strings that span a move",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.v1.engine.detokenizer:IncrementalDetokenizer",
        names=(
            "from_new_request(tokenizer, request)",
            "update(new_token_ids, stop_terminated)",
            "get_next_output_text(finished, delta)",
            "num_output_tokens()",
        ),
        where=("engine/vllm_moved.py",),
        use="the same",
        recheck="update returns the stop string that it met, and drops what follows it",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.v1.engine",
        names=("EngineCoreRequest",),
        where=("engine/vllm_moved.py",),
        use="what a detokenizer is made for",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.v1.engine:EngineCoreRequest",
        names=(
            "request_id",
            "prompt_token_ids",
            "mm_features",
            "sampling_params",
            "pooling_params",
            "arrival_time",
            "lora_request",
            "cache_salt",
            "data_parallel_rank",
        ),
        where=("engine/vllm_moved.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.sampling_params",
        names=("SamplingParams",),
        where=("engine/vllm_moved.py",),
        use="a moved leg's parameters",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.sampling_params:SamplingParams",
        names=("max_tokens", "min_tokens", "stop"),
        where=("engine/vllm_moved.py",),
        use="stop strings are ours to find once a leg has moved",
    ),
    Internal(
        feature=Feature.MIGRATION,
        owner="vllm.v1.engine.async_llm:AsyncLLM",
        names=("tokenizer",),
        where=("engine/vllm.py",),
        use="for the detokenizer",
    ),
)
