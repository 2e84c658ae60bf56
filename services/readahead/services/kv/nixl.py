"""vLLM's NIXL connector, with handovers that can be renewed and released by command.

Imported in the engine core's process (vLLM's `kv_connector_module_path`). Stock NIXL
renews a lease only by heartbeats from the engine that will pull; while a request waits in the
router nobody beats, hence the commands.

The pull scheduler and the pull worker live in different processes when there is tensor
parallelism, so commands travel in the connector's metadata, which vLLM ships with each step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.connector import NixlPullConnector
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_scheduler import (
    NixlPullConnectorScheduler,
)
from vllm.distributed.kv_transfer.kv_connector.v1.nixl.pull_worker import NixlPullConnectorWorker
from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import KVCacheConfig

from readahead.services.kv.affinity import affinity_kept
from readahead.services.kv.core_calls import Workers, allow_amx, die_with_front_end, leg_id
from readahead.services.kv.nixl_failures import PeerFailures
from readahead.services.kv.nixl_progress import let_progress_thread_sleep
from readahead.services.kv.nixl_stats import (
    FAILURES,
    FALLBACKS,
    GRPC_BYTES,
    GRPC_TRANSFERS,
    HandoverMetrics,
    HandoverStats,
)


class HandoverScheduler(NixlPullConnectorScheduler):  # type: ignore[misc]  # vLLM is untyped here
    """Scheduler side: knows which finished requests wait to be pulled."""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, engine_id, kv_cache_config)
        self.held: dict[str, str] = {}
        """Engine's request id by leg id."""
        self._totals = Counter(
            {"transfers_total": 0, "transfer_bytes_total": 0, "grpc_fallbacks_total": 0}
        )
        self._release: list[str] = []
        self._renew: list[str] = []

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """Notes the request as held iff its blocks stay for a pull."""
        is_held, params = super().request_finished(request, block_ids)
        if is_held:
            self.held[leg_id(request.request_id)] = request.request_id
        return is_held, params

    def update_connector_output(self, connector_output: Any) -> None:
        """Counts what was pulled here and forgets what was pulled from here."""
        super().update_connector_output(connector_output)
        for request_id in connector_output.finished_sending or ():
            if self.held.get(leg_id(request_id)) == request_id:
                del self.held[leg_id(request_id)]
        if stats := connector_output.kv_connector_stats:
            data = stats.data
            moved = data["bytes_transferred"]
            self._totals["transfers_total"] += len(moved) + sum(data[GRPC_TRANSFERS])
            self._totals["transfer_bytes_total"] += sum(moved) + sum(data[GRPC_BYTES])
            self._totals["grpc_fallbacks_total"] += len(data[FALLBACKS])
            self._totals.update(f"failed_{reason}" for reason in data[FAILURES])

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Adds the commands since the last step."""
        meta = super().build_connector_meta(scheduler_output)
        meta.readahead_release, self._release = self._release, []
        meta.readahead_renew, self._renew = self._renew, []
        return meta

    def books(self, workers: Workers) -> Mapping[str, int]:
        """What is held and what was moved; `failed_<reason>` counts pulls that NIXL, and gRPC where
        it stood in, did not bring."""
        return {"handovers_held": len(self.held), **self._totals}

    def renew(self, leg_ids: Iterable[str], workers: Workers) -> list[str]:
        """Extends leases at the next step. Returns the ids that are not held."""
        wanted = list(leg_ids)
        self._renew.extend(self.held[each] for each in wanted if each in self.held)
        return [each for each in wanted if each not in self.held]

    def release(self, leg_ids: Iterable[str], workers: Workers) -> None:
        """Frees blocks at the next step. Ids that are not held are ignored."""
        self._release.extend(self.held[each] for each in leg_ids if each in self.held)

    def release_all(self, workers: Workers) -> None:
        """Frees the blocks of every handover at the next step."""
        self.release(list(self.held), workers)


class HandoverWorker(NixlPullConnectorWorker):  # type: ignore[misc]  # vLLM is untyped here
    """Worker side: owns the leases."""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, engine_id, kv_cache_config)
        self.xfer_stats = HandoverStats()
        self._released: set[str] = set()
        self._peer_failures = PeerFailures()
        self._peers: dict[str, str] = {}
        """Engine that each pull under way is from."""

    def start_load_kv(self, metadata: Any) -> None:
        """Applies the step's commands after the stock work, which starts this step's leases."""
        for request_id, pull in metadata.reqs_to_recv.items():
            if pull.awaiting_kvs:
                self._peers[request_id] = pull.remote.engine_id
        super().start_load_kv(metadata)
        for request_id in metadata.readahead_renew:
            self._handle_heartbeat(request_id)
        for request_id in metadata.readahead_release:
            self.release(request_id)

    def release(self, request_id: str) -> None:
        """Frees a held request's blocks with the step's results."""
        if self._reqs_to_send.pop(request_id, None) is not None:
            self._reqs_to_process.discard(request_id)
            self.consumer_notification_counts_by_req.pop(request_id, None)
            self.expected_consumer_notifications_by_req.pop(request_id, None)
            self._released.add(request_id)

    def get_transfer_results(self) -> Any:
        """Counts the pulls that have failed, by reason."""
        results = super().get_transfer_results()
        for request_id in results.finished_recving:
            engine_id = self._peers.pop(request_id, "")
            if request_id in results.failed_recving:
                self.xfer_stats.record_failure(self._peer_failures.reason(engine_id))
        return results

    def _nixl_handshake(
        self, host: str, port: int, remote_tp_size: int, expected_engine_id: str, *more: Any
    ) -> Any:
        """Remembers why a peer was refused. Runs in a thread of its own."""
        try:
            agents = super()._nixl_handshake(host, port, remote_tp_size, expected_engine_id, *more)
        except Exception as error:
            self._peer_failures.note(expected_engine_id, error)
            raise
        self._peer_failures.forget(expected_engine_id)
        return agents

    def _validate_remote_agent_handshake(self, nixl_agent_meta: Any, *more: Any) -> None:
        """Refuses a peer whose blocks hold another number of tokens: vLLM converts them, and on the
        CPU build what comes of it is another output."""
        theirs = nixl_agent_meta.block_size
        if theirs != self.block_size:
            raise ValueError(f"blocks of {theirs} tokens there and of {self.block_size} here")
        super()._validate_remote_agent_handshake(nixl_agent_meta, *more)

    def _get_new_notifs(self) -> set[str]:
        """Reports a released request as sent, which makes the scheduler free its blocks."""
        done: set[str] = super()._get_new_notifs() | self._released
        self._released = set()
        return done


class NixlConnector(NixlPullConnector):  # type: ignore[misc]  # vLLM is untyped here
    """What `kv_connector` names; vLLM knows NIXL by this very name. One is made per side."""

    _SCHEDULER: type[HandoverScheduler] = HandoverScheduler
    _WORKER: type[HandoverWorker] = HandoverWorker

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        # Not NixlPullConnector's own constructor: it would build the stock sides too, each with
        # its NIXL agent and registered memory.
        super(NixlPullConnector, self).__init__(vllm_config, role, kv_cache_config)
        if role == KVConnectorRole.SCHEDULER:
            die_with_front_end()
            self.connector_scheduler = self._SCHEDULER(vllm_config, self.engine_id, kv_cache_config)
        else:
            if current_platform.is_cpu():
                let_progress_thread_sleep()
                allow_amx()
            with affinity_kept():
                self.connector_worker = self._WORKER(vllm_config, self.engine_id, kv_cache_config)

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> HandoverStats:
        """Statistics as they come from the engine core; empty ones without data."""
        return HandoverStats() if data is None else HandoverStats(data=data)

    @classmethod
    def build_prom_metrics(cls, *arguments: Any) -> HandoverMetrics:
        """What the front end makes of them."""
        return HandoverMetrics(*arguments)
