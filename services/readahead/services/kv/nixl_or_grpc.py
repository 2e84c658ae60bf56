"""NIXL, and gRPC where NIXL fails: what `kv.backend: auto` runs.

The source offers each handover over gRPC too; nothing is copied unless a peer asks. A target whose
NIXL pull fails pulls over gRPC into the blocks that the request has got: vLLM's scheduler sees one
pull that took longer. Where that fails as well, the KV is computed again, as without this.

Imported in the engine core's process (vLLM's `kv_connector_module_path`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from vllm import __version__ as vllm_version
from vllm.config import VllmConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
)
from vllm.v1.kv_cache_interface import KVCacheConfig

from readahead.core.errors import Reason
from readahead.runtime.clock import monotonic_s
from readahead.services.kv import nixl
from readahead.services.kv.block_memory import BlockMemory
from readahead.services.kv.grpc_orders import TRANSPORT, Load, StepOrders, sources_of
from readahead.services.kv.grpc_settings import GrpcKvSettings, fingerprint
from readahead.services.kv.grpc_worker import GrpcWorker
from readahead.services.kv.host_store import Offer

AVOID_S = 60.0
"""A peer that NIXL did not reach is not tried by NIXL for so long: each handshake with one that
does not answer takes vLLM 5 s, which the request waits for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoDoors(KVConnectorHandshakeMetadata):  # type: ignore[misc]  # vLLM is untyped here
    """What a rank's peers need: NIXL's payload, and where the gRPC server is, if any."""

    nixl: Any
    address: str
    stream_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """A pull over gRPC, for the case that NIXL's fails."""

    load: Load
    is_only_way: bool
    """The source has no NIXL."""


class FallbackScheduler(nixl.HandoverScheduler):
    """Tells the workers what to offer over gRPC, and where to pull when NIXL fails."""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, engine_id, kv_cache_config)
        self._addresses: list[str] = []
        self._streams: list[str] = []
        self._offers: dict[str, list[int]] = {}

    def set_xfer_handshake_metadata(self, metadata: Mapping[tuple[int, int], TwoDoors]) -> None:
        """Learns the gRPC servers' addresses; the rest is NIXL's."""
        addresses = [metadata[rank].address for rank in sorted(metadata)]
        self._addresses = addresses if all(addresses) else []
        self._streams = [metadata[rank].stream_address for rank in sorted(metadata)]
        super().set_xfer_handshake_metadata({rank: both.nixl for rank, both in metadata.items()})

    def on_new_request(self, request: Any) -> None:
        """NIXL does not beat for a copy that only gRPC can bring: the router renews its lease."""
        if not _is_grpc_only(request.kv_transfer_params):
            super().on_new_request(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int | None, bool]:
        """NIXL's source has the whole prompt; a copy on a host may have less, or more."""
        params = request.kv_transfer_params
        if not _is_grpc_only(params):
            matched: tuple[int | None, bool] = super().get_num_new_matched_tokens(
                request, num_computed_tokens
            )
            return matched
        if not params["do_remote_prefill"] or not sources_of(params, ranks=len(self._addresses)):
            return 0, False
        tokens = min(params["remote_num_tokens"], request.num_tokens) - num_computed_tokens
        return max(0, tokens), tokens > 0

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        """Offers what is held over gRPC as well."""
        is_held, params = super().request_finished(request, block_ids)
        if is_held and params and self._addresses:
            self._offers[request.request_id] = list(block_ids[0])
            params["remote_addresses"] = self._addresses
            params["remote_streams"] = self._streams
        return is_held, params

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Adds the offers, and the spare for each pull."""
        spares = {
            request_id: spare
            for request_id, (request, block_ids, *_) in self._reqs_need_recv.items()
            if (spare := self._spare(request, block_ids)) is not None
        }
        meta = super().build_connector_meta(scheduler_output)
        meta.readahead_spares = spares
        meta.readahead_offers, self._offers = self._offers, {}
        return meta

    def _spare(self, request: Any, block_ids: Any) -> Spare | None:
        params = request.kv_transfer_params
        sources = sources_of(params, ranks=len(self._addresses))
        is_only_way = _is_grpc_only(params)
        wanted = list(block_ids[0]) if block_ids else []
        if not (sources and wanted) and not is_only_way:
            return None
        # What is in the prefix cache is not wanted: the wanted blocks are the copy's last.
        first = max(0, len(params["remote_block_ids"][0]) - len(wanted))
        load = Load(
            request_id=request.request_id, block_ids=wanted, first_block=first, sources=sources
        )
        return Spare(load=load, is_only_way=is_only_way)


class FallbackWorker(nixl.HandoverWorker):
    """NIXL's worker, with the gRPC connector's beside it."""

    _grpc: GrpcWorker | None = None  # vLLM's destructor asks, whatever the constructor came to
    address = stream_address = ""

    def __init__(
        self, vllm_config: VllmConfig, engine_id: str, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, engine_id, kv_cache_config)
        self._memory: BlockMemory | None = None
        self._spares: dict[str, Spare] = {}
        """Of pulls that NIXL has under way."""
        self._avoid_until_s: dict[str, float] = {}
        """By engine."""
        self._saved_blocks: set[int] = set()
        """NIXL failed to bring them in this step, and gRPC is at it."""

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Opens the gRPC server beside NIXL, where the model's KV can go over gRPC."""
        super().register_kv_caches(kv_caches)
        groups = len(self.kv_cache_config.kv_cache_groups)
        if groups != 1 or self.vllm_config.parallel_config.pipeline_parallel_size > 1:
            _log.warning("kv_fallback_unavailable: %d groups of KV caches, or pipelined", groups)
            return
        memory = BlockMemory(kv_caches, blocks=self.kv_cache_config.num_blocks)
        mark = fingerprint(self.vllm_config, memory, engine_version=vllm_version, rank=self.tp_rank)
        self._memory = memory
        self._grpc = GrpcWorker(GrpcKvSettings.of(self.vllm_config), memory, mark)
        door = self._grpc.start()
        self.address, self.stream_address = door.address, door.stream_address

    def start_load_kv(self, metadata: Any) -> None:
        """Pulls over gRPC what NIXL cannot bring; the rest is NIXL's, with a spare kept ready."""
        spares: Mapping[str, Spare] = metadata.readahead_spares if self._grpc else {}
        for request_id, spare in spares.items():
            if spare.is_only_way or self._is_avoided(spare):
                del metadata.reqs_to_recv[request_id]
                self._pull(spare)
            else:
                self._spares[request_id] = spare
        super().start_load_kv(metadata)
        if self._grpc is None or self._memory is None:
            return
        for key, block_ids in metadata.readahead_offers.items():
            if key in self._reqs_to_send:
                fill = partial(self._memory.gather, block_ids, self._grpc.store.rows)
                self._grpc.store.offer(key, Offer(blocks=len(block_ids), fill=fill))

    def get_transfer_results(self) -> Any:
        """Has gRPC pull what NIXL failed to, and reports what gRPC has brought."""
        if self._grpc is None:
            return super().get_transfer_results()
        for request_id in self._grpc.store.take_taken():
            self.release(request_id)
        results = super().get_transfer_results()
        self._grpc.store.withdraw(results.finished_sending)
        for request_id in tuple(results.finished_recving):
            spare = self._spares.pop(request_id, None)
            if spare is not None and request_id in results.failed_recving:
                self._avoid(spare)
                self._saved_blocks.update(spare.load.block_ids)
                results.failed_recving.discard(request_id)
                results.finished_recving.discard(request_id)
                self._pull(spare)
        results.finished_recving |= self._grpc.take_received()
        self._count(self._grpc)
        return results

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks that neither has brought."""
        lost: set[int] = super().get_block_ids_with_load_errors() - self._saved_blocks
        self._saved_blocks = set()
        return lost if self._grpc is None else lost | self._grpc.take_bad_blocks()

    def forget(self, request_ids: Iterable[str]) -> None:
        """Nobody wants these any more: what gRPC pulls for them is cut short."""
        ended = list(request_ids)
        for request_id in ended:
            self._spares.pop(request_id, None)
        if self._grpc is not None:
            self._grpc.load(StepOrders(cancels=ended))

    def shutdown(self) -> None:
        """Ends both."""
        if self._grpc is not None:
            self._grpc.close()
        super().shutdown()

    def _pull(self, spare: Spare) -> None:
        assert self._grpc is not None
        load = spare.load
        if load.block_ids and load.sources:
            self._grpc.load(StepOrders(loads=[load]))
        elif load.sources:
            self._grpc.load(StepOrders(frees=[load.sources]))
        if not spare.is_only_way:
            self.xfer_stats.record_fallback()

    def _is_avoided(self, spare: Spare) -> bool:
        return monotonic_s() < self._avoid_until_s.get(spare.load.sources[0].engine_id, 0.0)

    def _avoid(self, spare: Spare) -> None:
        source, now = spare.load.sources[0], monotonic_s()
        self._avoid_until_s = {
            engine_id: until_s
            for engine_id, until_s in self._avoid_until_s.items()
            if until_s > now
        }
        self._avoid_until_s[source.engine_id] = now + AVOID_S
        _log.warning(
            "kv_fallback: NIXL does not bring KV caches from engine %s (%s); gRPC at %s does for "
            "the next %d s",
            source.engine_id,
            self._peer_failures.reason(source.engine_id),
            source.address,
            AVOID_S,
        )

    def _count(self, grpc: GrpcWorker) -> None:
        report = grpc.take_report()
        if report is None:
            return
        self.xfer_stats.record_grpc(report.transfers, report.transfer_bytes)
        for reason in report.failures.values():
            self.xfer_stats.record_failure(Reason(reason))


class NixlConnector(nixl.NixlConnector):
    """What `kv_connector` names; vLLM knows NIXL by this very name. One is made per side."""

    _SCHEDULER = FallbackScheduler
    _WORKER = FallbackWorker

    def get_handshake_metadata(self) -> TwoDoors | None:
        """What this rank's peers need."""
        payload = super().get_handshake_metadata()
        worker = self.connector_worker
        if payload is None:
            return None
        return TwoDoors(nixl=payload, address=worker.address, stream_address=worker.stream_address)

    def get_transfer_results(self, finished_req_ids: set[str]) -> Any:
        """Passes on who has ended, which NIXL has no use for."""
        self.connector_worker.forget(finished_req_ids)
        return super().get_transfer_results(finished_req_ids)


def _is_grpc_only(params: Mapping[str, Any] | None) -> bool:
    """Whether a handover's source keeps its KV where NIXL cannot read it."""
    return params is not None and params.get("transport") == TRANSPORT
