"""What the fall-back from NIXL to gRPC, and the reasons why NIXL fails, rely on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_KV = "vllm.distributed.kv_transfer.kv_connector.v1"
_CONNECTOR = f"{_KV}.nixl.connector:NixlPullConnector"
_SCHEDULER = f"{_KV}.nixl.pull_scheduler:NixlPullConnectorScheduler"
_WORKER = f"{_KV}.nixl.pull_worker:NixlPullConnectorWorker"

_FAILURES: tuple[Internal, ...] = (
    Internal(
        feature=Feature.NIXL,
        owner=_WORKER,
        names=(
            "get_transfer_results()",
            "_nixl_handshake(host, port, remote_tp_size, expected_engine_id)",
            "xfer_stats",
        ),
        where=("kv/nixl.py",),
        use="pulls that failed, and why: the handshake's error is kept by peer",
        recheck="a failed pull is still among those received too",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.base_worker:NixlBaseConnectorWorker",
        wording=("Remote NIXL agent engine ID mismatch",),
        where=("kv/nixl_failures.py",),
        use="told from other refusals by its text, since all have one class",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.base:KVConnectorTransferResults",
        names=("finished_recving", "failed_recving"),
        where=("kv/nixl.py", "kv/nixl_or_grpc.py"),
        use="pulls that are over, and which of them failed",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.metadata:ReqMeta",
        names=("awaiting_kvs", "remote"),
        where=("kv/nixl.py",),
        use="whether a pull is waited for, and from whom it is",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.metadata:RemoteMeta",
        names=("engine_id",),
        where=("kv/nixl.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=_CONNECTOR,
        names=(
            "build_kv_connector_stats(data)",
            "build_prom_metrics(vllm_config, metric_types, labelnames, per_engine_labelvalues)",
        ),
        where=("kv/nixl.py",),
        use="our counts travel with vLLM's own",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.stats",
        names=("NixlKVConnectorStats", "NixlPromMetrics"),
        where=("kv/nixl_stats.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.stats:NixlKVConnectorStats",
        names=("reset()", "is_empty()"),
        where=("kv/nixl_stats.py",),
        use="the same",
        recheck="aggregate joins lists of any name",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.stats:NixlPromMetrics",
        names=(
            "__init__(vllm_config, metric_types, labelnames, per_engine_labelvalues)",
            "observe(transfer_stats_data, engine_idx)",
            "_counter_cls",
        ),
        where=("kv/nixl_stats.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.v1.metrics.utils",
        names=("create_metric_per_engine(metric, per_engine_labelvalues)",),
        where=("kv/nixl_stats.py",),
        use="the same",
    ),
)

_FALLBACK: tuple[Internal, ...] = (
    Internal(
        feature=Feature.FALLBACK,
        owner=f"{_KV}.base",
        names=("KVConnectorHandshakeMetadata",),
        where=("kv/nixl_or_grpc.py",),
        use="NIXL's payload, with the gRPC server's address beside it",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner=_SCHEDULER,
        names=(
            "__init__(vllm_config, engine_id, kv_cache_config)",
            "set_xfer_handshake_metadata(metadata)",
            "on_new_request(request)",
            "get_num_new_matched_tokens(request, num_computed_tokens)",
            "request_finished(request, block_ids)",
            "build_connector_meta(scheduler_output)",
            "_reqs_need_recv",
        ),
        wording=("self._reqs_need_recv[request.request_id] = (request, [], (), False)",),
        where=("kv/nixl_or_grpc.py",),
        use="what is offered over gRPC, and a spare for each pull",
        recheck="_reqs_need_recv has the request and its blocks first",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner=_WORKER,
        names=(
            "__init__(vllm_config, engine_id, kv_cache_config)",
            "register_kv_caches(kv_caches)",
            "start_load_kv(metadata)",
            "get_transfer_results()",
            "get_block_ids_with_load_errors()",
            "shutdown()",
            "kv_cache_config",
            "vllm_config",
            "tp_rank",
            "xfer_stats",
            "_reqs_to_send",
        ),
        where=("kv/nixl_or_grpc.py",),
        use="a pull that NIXL fails is taken over by gRPC",
        recheck="a failed pull's blocks are told once, and its request stays until it is received",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner=_CONNECTOR,
        names=("get_handshake_metadata()", "get_transfer_results(finished_req_ids)"),
        where=("kv/nixl_or_grpc.py",),
        use="the gRPC server's address; requests that ended meanwhile",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner=f"{_KV}.base:KVConnectorTransferResults",
        names=("finished_sending",),
        where=("kv/nixl_or_grpc.py",),
        use="what need not be offered any more",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner="vllm.v1.request:Request",
        names=("request_id", "kv_transfer_params", "num_tokens"),
        where=("kv/nixl_or_grpc.py",),
        use="what can be loaded",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner="vllm.v1.kv_cache_interface:KVCacheConfig",
        names=("kv_cache_groups", "num_blocks"),
        where=("kv/nixl_or_grpc.py",),
        use="whether and how the model's KV can go over gRPC",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner="vllm.config:VllmConfig",
        names=("parallel_config",),
        where=("kv/nixl_or_grpc.py",),
        use="the same",
    ),
    Internal(
        feature=Feature.FALLBACK,
        owner="vllm.config:ParallelConfig",
        names=("pipeline_parallel_size",),
        where=("kv/nixl_or_grpc.py",),
        use="the same",
    ),
)

FALLBACK_INTERNALS: tuple[Internal, ...] = (*_FAILURES, *_FALLBACK)
