"""What the NIXL connector, and the choice of a connector, rely on in vLLM."""

from __future__ import annotations

from readahead.services.engine.vllm_internal import Feature, Internal

_KV = "vllm.distributed.kv_transfer.kv_connector.v1"
_SCHEDULER = f"{_KV}.nixl.pull_scheduler:NixlPullConnectorScheduler"
_WORKER = f"{_KV}.nixl.pull_worker:NixlPullConnectorWorker"

_SETTINGS: tuple[Internal, ...] = (
    Internal(
        feature=Feature.NIXL,
        owner="vllm.config:KVTransferConfig",
        names=(
            "kv_connector",
            "kv_connector_module_path",
            "kv_role",
            "kv_connector_extra_config",
            "kv_load_failure_policy",
            "kv_buffer_device",
        ),
        where=("engine/vllm_setup.py",),
        use="which connector; a KV cache that cannot be had is computed again",
        recheck="the policy recompute still gives identical output",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.config",
        names=("VllmConfig",),
        where=("kv/nixl.py", "kv/grpc_connector.py", "kv/nixl_or_grpc.py"),
        use="given to connectors",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.v1.kv_cache_interface",
        names=("KVCacheConfig",),
        where=("kv/nixl.py", "kv/grpc_connector.py", "kv/nixl_or_grpc.py"),
        use="given to connectors",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.base",
        names=("KVConnectorRole",),
        where=("kv/nixl.py", "kv/grpc_connector.py"),
        use="a connector is made for the scheduler, and one for each worker process",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.base:KVConnectorRole",
        names=("SCHEDULER",),
        where=("kv/nixl.py", "kv/grpc_connector.py"),
        use="the same",
    ),
)

_NIXL: tuple[Internal, ...] = (
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.connector",
        names=("NixlPullConnector",),
        where=("kv/nixl.py",),
        use="the base class; ours is called NixlConnector, since vLLM knows NIXL by that name",
        recheck="who else asks for the name, in config/vllm.py",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.connector:NixlPullConnector",
        names=(
            "__init__(vllm_config, role, kv_cache_config)",
            "connector_scheduler",
            "connector_worker",
            "engine_id",
        ),
        wording=("super().__init__(vllm_config, role, kv_cache_config)",),
        where=("kv/nixl.py",),
        use="our own two sides in place of the stock ones; its own constructor is passed over",
        recheck="what that constructor does beside making the two sides",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.pull_scheduler",
        names=("NixlPullConnectorScheduler",),
        where=("kv/nixl.py",),
        use="scheduler side",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=_SCHEDULER,
        names=(
            "__init__(vllm_config, engine_id, kv_cache_config)",
            "request_finished(request, block_ids)",
            "update_connector_output(connector_output)",
            "build_connector_meta(scheduler_output)",
        ),
        where=("kv/nixl.py",),
        use="which handovers are held; commands travel on the step's metadata",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.base_scheduler:NixlBaseConnectorScheduler",
        wording=("'kv_lease_duration'", "self._kv_lease_duration // 6"),
        where=("engine/vllm_setup.py",),
        use="the lease of a handover, and how often a decode engine beats",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.pull_worker",
        names=("NixlPullConnectorWorker",),
        where=("kv/nixl.py",),
        use="worker side",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=_WORKER,
        names=(
            "__init__(vllm_config, engine_id, kv_cache_config)",
            "start_load_kv(metadata)",
            "_get_new_notifs()",
            "_handle_heartbeat(payload)",
            "_reqs_to_send",
            "_reqs_to_process",
            "consumer_notification_counts_by_req",
            "expected_consumer_notifications_by_req",
        ),
        wording=("self._handle_heartbeat(msg[3:])",),
        where=("kv/nixl.py",),
        use="leases are renewed and ended by command",
        recheck="the reaper of expired leases clears the same four books",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.base_worker:NixlBaseConnectorWorker",
        wording=("self._lease_extension = kv_lease_duration * 2 // 3",),
        where=("kv/nixl.py",),
        use="a renewal extends a lease to two thirds",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.base_worker:NixlBaseConnectorWorker",
        names=(
            "_validate_remote_agent_handshake(nixl_agent_meta, remote_tp_size, remote_dcp_size)",
            "block_size",
        ),
        where=("kv/nixl.py",),
        use="a peer with another block size is refused",
        recheck="whether a pull from such a peer brings the right KV on every platform",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.metadata:NixlAgentMetadata",
        names=("block_size",),
        where=("kv/nixl.py",),
        use="the peer's block size",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.base_worker:NixlBaseConnectorWorker",
        wording=("os.sched_setaffinity(0, rsv_cores_for_kv)",),
        where=("kv/affinity.py",),
        use="undone: on a CPU it binds the thread that computes, of every engine, to one core",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.metadata:NixlConnectorMetadata",
        names=("reqs_to_recv",),
        where=("kv/nixl.py", "kv/nixl_or_grpc.py"),
        use="the step's pulls; carries our commands as attributes more",
        recheck="it can still be given attributes, and is sent whole",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=f"{_KV}.nixl.stats:NixlKVConnectorStats",
        names=("data",),
        wording=("'bytes_transferred': []",),
        where=("kv/nixl.py", "kv/nixl_stats.py"),
        use="transfers and their bytes",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.v1.outputs:KVConnectorOutput",
        names=("finished_sending", "kv_connector_stats"),
        where=("kv/nixl.py",),
        use="which handovers were pulled",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.v1.request:Request",
        names=("request_id",),
        where=("kv/nixl.py",),
        use="which handover is held",
    ),
    Internal(
        feature=Feature.NIXL,
        owner=_SCHEDULER,
        wording=(
            "params.get('do_remote_decode')",
            "params.get('do_remote_prefill')",
            "remote_block_ids=",
            "remote_engine_id=",
            "remote_request_id=",
            "remote_host=",
            "remote_port=",
            "remote_num_tokens=",
            "tp_size=",
        ),
        where=("engine/vllm_handover.py",),
        use="a handover's fields, from the prefill engine to the decode engine",
        recheck="a field that a decode engine needs and a handover of the other version lacks",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.envs",
        names=("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT"),
        where=("engine/vllm_environment.py",),
        use="where an engine serves its NIXL metadata",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.distributed",
        names=("nixl_utils",),
        where=("kv/nixl_progress.py",),
        use="NIXL's binding, whose progress thread is made to sleep on a CPU",
    ),
    Internal(
        feature=Feature.NIXL,
        owner="vllm.distributed.nixl_utils",
        names=("NixlWrapper",),
        where=("kv/nixl_progress.py",),
        use="the same",
    ),
)

NIXL_INTERNALS: tuple[Internal, ...] = (*_SETTINGS, *_NIXL)
