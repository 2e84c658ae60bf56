"""What tests, benchmarks and experiments rely on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

TEST_INTERNALS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.TESTS,
        owner="vllm",
        names=("LLM",),
        where=("tests",),
        use="one plain engine, to compare with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm",
        names=("SamplingParams",),
        where=("tests", "benchmarks", "experiments"),
        use="an engine in the process of the test itself, stepped by hand",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.sampling_params",
        names=("RequestOutputKind",),
        where=("tests", "benchmarks", "experiments"),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.engine.arg_utils",
        names=("EngineArgs",),
        where=("tests", "benchmarks"),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.v1.engine.llm_engine",
        names=("LLMEngine",),
        where=("tests", "benchmarks", "experiments"),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.envs",
        names=("VLLM_ENABLE_V1_MULTIPROCESSING",),
        where=("tests", "benchmarks", "experiments"),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.envs",
        names=(
            "VLLM_WORKER_MULTIPROC_METHOD",
            "VLLM_NIXL_SIDE_CHANNEL_HOST",
            "VLLM_NIXL_SIDE_CHANNEL_PORT",
        ),
        where=("tests",),
        use="what an engine is started with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.envs",
        names=("VLLM_NO_USAGE_STATS",),
        where=("tests", "experiments"),
        use="vLLM's own engines, to compare with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.envs",
        names=("VLLM_LOGGING_LEVEL", "VLLM_CPU_OMP_THREADS_BIND"),
        where=("experiments",),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.platforms.cpu",
        names=("CpuPlatform",),
        where=("tests",),
        use="asynchronous scheduling is forced on, drafting model included",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.platforms.cpu:CpuPlatform",
        names=("check_and_update_config(vllm_config)",),
        where=("tests",),
        use="the same",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.v1.core.sched.async_scheduler",
        names=("AsyncScheduler",),
        where=("benchmarks",),
        use="stock, to compare with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm",
        names=("benchmarks.serve", "utils.argparse_utils"),
        where=("tests", "experiments"),
        use="vLLM's own load generator, to compare with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm",
        names=("entrypoints.openai.api_server",),
        where=("experiments",),
        use="vLLM's own server, to compare with",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.v1.metrics.loggers",
        wording=("vllm:num_requests_running",),
        where=("tests",),
        use="vLLM's own metrics are exposed",
    ),
    Internal(
        feature=Feature.TESTS,
        owner="vllm.distributed.kv_transfer.kv_connector.v1.nixl.stats",
        wording=("vllm:nixl_xfer_time_seconds", "vllm:nixl_num_failed_transfers"),
        where=("tests",),
        use="the same",
    ),
)
