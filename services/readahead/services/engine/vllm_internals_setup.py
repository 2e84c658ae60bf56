"""What an engine's settings and its start rely on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_SETTINGS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.engine.arg_utils",
        names=("AsyncEngineArgs",),
        where=("engine/vllm_setup.py",),
        use="an engine's settings",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.engine.arg_utils:AsyncEngineArgs",
        names=(
            "create_engine_config()",
            "model",
            "served_model_name",
            "use_tqdm_on_load",
            "dtype",
            "max_num_seqs",
            "max_num_batched_tokens",
            "tensor_parallel_size",
            "enforce_eager",
            "gpu_memory_utilization",
            "kv_transfer_config",
            "scheduler_cls",
            "additional_config",
            "max_model_len",
            "kv_cache_memory_bytes",
            "distributed_executor_backend",
        ),
        where=("engine/vllm_setup.py",),
        use="an engine's settings",
        recheck="explicit KV bytes still skip the warm-up",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config",
        names=("VllmConfig", "KVTransferConfig"),
        where=("engine/vllm_setup.py",),
        use="an engine's settings, checked and completed",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:VllmConfig",
        names=("cache_config",),
        where=("engine/vllm.py", "engine/vllm_setup.py"),
        use="what the engine was given in the end",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:VllmConfig",
        names=("scheduler_config",),
        where=("engine/vllm.py",),
        use="what the engine was given in the end",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:CacheConfig",
        names=("block_size",),
        where=("engine/vllm.py", "kv/grpc_connector.py", "kv/grpc_settings.py"),
        use="tokens of a KV block",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:CacheConfig",
        names=("num_gpu_blocks",),
        where=("engine/vllm_setup.py", "engine/vllm_scheduler.py"),
        use="how many there are",
        recheck="one of them is still the null block",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:SchedulerConfig",
        names=("max_num_seqs",),
        where=("engine/vllm.py",),
        use="how many requests run at once",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.config:ModelConfig",
        names=("get_vocab_size()", "max_model_len"),
        where=("engine/vllm.py",),
        use="prompts that would end the core are refused",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.platforms",
        names=("current_platform",),
        where=("engine/vllm_setup.py", "kv/nixl.py", "kv/grpc_connector.py"),
        use="whether this is the CPU build",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.platforms.interface:Platform",
        names=("is_cpu()",),
        where=("engine/vllm_setup.py", "kv/nixl.py", "kv/grpc_connector.py"),
        use="whether this is the CPU build",
    ),
    Internal(
        feature=Feature.ENGINE,
        owner="vllm.envs",
        names=("VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"),
        where=("engine/vllm_environment.py",),
        use="nothing is sent, little is logged",
    ),
)

_CPU_START: tuple[Internal, ...] = (
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.envs",
        names=("VLLM_CPU_OMP_THREADS_BIND", "VLLM_ENABLE_V1_MULTIPROCESSING"),
        where=("engine/vllm_environment.py",),
        use="several engines share a machine; core and worker share a process",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.platforms.cpu",
        wording=(
            "os.environ['VLLM_WORKER_MULTIPROC_METHOD'] = 'spawn'",
            "scheduler_config.async_scheduling = False",
        ),
        where=("engine/vllm_environment.py",),
        use="the start method is put back, so that the zygote's workers fork their cores",
        recheck="asynchronous scheduling is still off on a CPU, where tests force it on",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.envs",
        names=("VLLM_WORKER_MULTIPROC_METHOD",),
        where=("engine/vllm_environment.py", "zygote.py"),
        use="workers of a zygote fork their cores",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm",
        names=(
            "renderers.hf",
            "transformers_utils.chat_templates.registry",
            "v1.core.sched.scheduler",
            "v1.engine.core",
            "v1.worker.cpu_worker",
        ),
        where=("zygote.py",),
        use="imported once, before workers are forked",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.model_executor.models.registry",
        names=("ModelRegistry", "_LazyRegisteredModel", "_RegisteredModel"),
        where=("engine/vllm_setup.py",),
        use="the model's class is imported in place; vLLM would start a process for that, which "
        "imports all of vLLM again",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.model_executor.models.registry:_ModelRegistry",
        names=("models",),
        where=("engine/vllm_setup.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.model_executor.models.registry:_LazyRegisteredModel",
        names=("load_model_cls()",),
        where=("engine/vllm_setup.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.CPU_START,
        owner="vllm.model_executor.models.registry:_RegisteredModel",
        names=("from_model_cls(model_cls)",),
        where=("engine/vllm_setup.py",),
        use="the same",
    ),
)

SETUP_INTERNALS: tuple[Internal, ...] = (*_SETTINGS, *_CPU_START)
