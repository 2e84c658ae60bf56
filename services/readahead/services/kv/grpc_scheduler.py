"""The gRPC connector's side in the engine core: decides what is saved, loaded and pulled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm.distributed.kv_transfer import get_kv_transfer_group
from vllm.v1.request import RequestStatus

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.clock import monotonic_s
from readahead.services.kv.core_calls import Workers, leg_id
from readahead.services.kv.grpc_orders import (
    TRANSPORT,
    Books,
    Door,
    Load,
    Save,
    StepOrders,
    StepReport,
    sources_of,
)
from readahead.services.kv.grpc_settings import GrpcKvSettings
from readahead.services.kv.grpc_target import Source


@dataclass(slots=True, kw_only=True)
class ParkedCopy:
    """Where a parked request's KV is, and how much of it."""

    tokens: int
    blocks: int
    is_offered: bool = False
    """Another engine may pull it: it outlives the request, for a lease."""


class GrpcScheduler:
    """Keeps books of the host copies. They may lag behind the workers, and then count too much."""

    def __init__(self, settings: GrpcKvSettings, *, block_tokens: int) -> None:
        self._settings = settings
        self._block_tokens = block_tokens
        self._doors: list[Door] = []
        self._orders = StepOrders()
        self._copies: dict[str, int] = {}
        """Blocks by the copy's key, which is the engine's request id."""
        self._held: dict[str, str] = {}
        """The key by leg id, of copies that wait to be pulled."""
        self._parked: dict[str, ParkedCopy] = {}
        self._asked: set[str] = set()
        """Requests that have had their one load."""
        self._loading: set[str] = set()
        self._awaiting: dict[str, Sequence[Source]] = {}
        """Copies elsewhere, of requests that wait to be scheduled here."""
        self._next_beat_s = 0.0
        self._totals = Counter({"transfers_total": 0, "transfer_bytes_total": 0})

    # vLLM's hooks

    def open(self, doors: Mapping[int, Door]) -> None:
        """Learns where the ranks serve their copies."""
        self._doors = [doors[rank] for rank in sorted(doors)]

    def on_new_request(self, request: Any) -> None:
        """Notes whose lease to renew while the request waits."""
        if sources := self._sources(request.kv_transfer_params):
            self._awaiting[request.request_id] = sources

    def matched_tokens(self, request: Any, computed_tokens: int) -> int:
        """Tokens whose KV can be loaded beyond those computed. Has no effect."""
        return max(0, self._available_tokens(request) - computed_tokens)

    def allocated(self, request: Any, block_ids: Sequence[int], loaded_tokens: int) -> None:
        """Orders the load that `matched_tokens` promised, into these blocks."""
        request_id = request.request_id
        sources = self._awaiting.pop(request_id, None)
        if not loaded_tokens:
            if sources and request_id not in self._asked:  # all of it is in the prefix cache
                self._asked.add(request_id)
                self._orders.frees.append(sources)
            if (parked := self._parked.get(request_id)) is not None and not parked.is_offered:
                del self._parked[request_id]
                self._drop([request_id])
            return
        end_tokens = self._available_tokens(request)
        first = (end_tokens - loaded_tokens) // self._block_tokens
        wanted = block_ids[first : -(-end_tokens // self._block_tokens)]
        if self._parked.pop(request_id, None) is not None:
            load = Load(request_id=request_id, block_ids=wanted, first_block=first, key=request_id)
        else:
            sources = sources or self._sources(request.kv_transfer_params)
            load = Load(request_id=request_id, block_ids=wanted, first_block=first, sources=sources)
        self._asked.add(request_id)
        self._loading.add(request_id)
        self._orders.loads.append(load)

    def take_orders(self) -> StepOrders:
        """What the workers have to do in the step that is being scheduled."""
        now = monotonic_s()
        if self._awaiting and now >= self._next_beat_s:
            self._next_beat_s = now + self._settings.lease_s / 6
            self._orders.beats.extend(self._awaiting.values())
        orders, self._orders = self._orders, StepOrders()
        return orders

    @property
    def has_orders(self) -> bool:
        """Iff a step is needed to bring the workers what is to be done."""
        return not self._orders.is_empty()

    def take_report(self, report: StepReport | None, received: Iterable[str]) -> None:
        """Brings the books up to date after a step."""
        self._loading.difference_update(received)
        if report is None:
            return
        self._forget(report.gone)
        self._totals["transfers_total"] += report.transfers
        self._totals["transfer_bytes_total"] += report.transfer_bytes
        self._totals.update(f"failed_{reason}" for reason in report.failures.values())

    def finished(self, request: Any, block_ids: Sequence[int]) -> dict[str, Any] | None:
        """Keeps a copy of what was computed for another engine; ends what the request has here.

        The blocks can be freed at once: the copy is made before the next forward pass.
        """
        request_id = request.request_id
        self._asked.discard(request_id)
        if request_id in self._loading:
            self._orders.cancels.append(request_id)
        if (sources := self._awaiting.pop(request_id, None)) is not None:
            self._orders.frees.append(sources)
        if (parked := self._parked.pop(request_id, None)) is not None and not parked.is_offered:
            self._drop([request_id])
        params = request.kv_transfer_params or {}
        if (
            not params.get("do_remote_decode")
            or request.status != RequestStatus.FINISHED_LENGTH_CAPPED
        ):
            return None
        tokens = request.num_computed_tokens
        blocks = list(block_ids[: -(-tokens // self._block_tokens)])
        is_kept = 0 < len(blocks) <= self.free_blocks
        if is_kept:
            self._keep(request_id, blocks, is_leased=True)
            self._held[leg_id(request_id)] = request_id
        return self._handover(request_id, tokens, len(blocks), is_kept=is_kept)

    # For the scheduler that parks

    def park(self, request: Any, block_ids: Sequence[int]) -> None:
        """Has the workers save a running request's blocks before the next forward pass.

        Raises:
            ReadaheadError: OVERLOADED; there is no room on the host.
        """
        tokens = request.num_computed_tokens
        blocks = list(block_ids[: -(-tokens // self._block_tokens)])
        if len(blocks) > self.free_blocks:
            raise ReadaheadError(
                Reason.OVERLOADED,
                f"No host memory for {len(blocks)} KV blocks: {self.free_blocks} are free.",
            )
        self._keep(request.request_id, blocks, is_leased=False)
        self._parked[request.request_id] = ParkedCopy(tokens=tokens, blocks=len(blocks))

    def offer(self, request_id: str) -> dict[str, Any]:
        """Lets another engine pull a parked request's copy, under a lease from now.

        Raises:
            ReadaheadError: REQUEST_NOT_FOUND; it is not parked here.
        """
        if (parked := self._parked.get(request_id)) is None:
            raise ReadaheadError(Reason.REQUEST_NOT_FOUND, "The request has no KV copy here.")
        parked.is_offered = True
        self._held[leg_id(request_id)] = request_id
        self._orders.leases.append(request_id)
        return self._handover(request_id, parked.tokens, parked.blocks, is_kept=True)

    @property
    def free_blocks(self) -> int:
        """Blocks that new copies can have."""
        capacity = min((door.capacity_blocks for door in self._doors), default=0)
        return max(0, capacity - sum(self._copies.values()))

    @property
    def parked_copies(self) -> Mapping[str, ParkedCopy]:
        """By the engine's request id; not those that are being loaded."""
        return self._parked

    # Utility calls; see core_calls.Handovers

    def books(self, workers: Workers) -> Mapping[str, int]:
        """The workers' books, with what they are still to be told.

        `failed_<reason>` counts loads that did not bring everything.
        """
        counts = self._catch_up(workers)
        return {
            **counts,
            "handovers_held": len(self._held),
            "host_copies": len(self._copies),
            "host_blocks_free": self.free_blocks,
            **self._totals,
        }

    def renew(self, leg_ids: Iterable[str], workers: Workers) -> list[str]:
        """Extends leases now. Returns the ids that are not held."""
        wanted = list(leg_ids)
        keys = [self._held[each] for each in wanted if each in self._held]
        if keys:
            workers(_renew_copies, args=(keys,))
            self._catch_up(workers)
        return [each for each in wanted if each not in self._held]

    def release(self, leg_ids: Iterable[str], workers: Workers) -> None:
        """Frees copies now. Ids that are not held are ignored."""
        keys = [self._held[each] for each in leg_ids if each in self._held]
        # Offered ones as well: their request is computed again if it should come back.
        for key in keys:
            self._parked.pop(key, None)
        if keys:
            self._orders.saves = [each for each in self._orders.saves if each.key not in keys]
            workers(_drop_copies, args=(keys,))
            self._forget(keys)

    def release_all(self, workers: Workers) -> None:
        """Frees the copies of every handover now."""
        self.release(list(self._held), workers)

    def _catch_up(self, workers: Workers) -> Mapping[str, int]:
        """Forgets copies that are gone. Returns the first rank's counts."""
        books: list[Books] = workers(_books)
        here = set.intersection(*(set(each.copies) for each in books))
        here.update(save.key for save in self._orders.saves)
        self._forget([key for key in self._copies if key not in here])
        return books[0].counts

    def _available_tokens(self, request: Any) -> int:
        """From the start of the request, in the copy that it has."""
        if (parked := self._parked.get(request.request_id)) is not None:
            # The last token's KV is not computed, and that of rejected drafts is of no use.
            return int(min(parked.tokens, request.num_tokens - 1))
        params = request.kv_transfer_params
        if request.request_id in self._asked or not self._sources(params):
            return 0
        return int(min(params["remote_num_tokens"], request.num_tokens))

    def _keep(self, key: str, blocks: Sequence[int], *, is_leased: bool) -> None:
        self._copies[key] = len(blocks)
        self._orders.saves.append(Save(key=key, block_ids=blocks, is_leased=is_leased))

    def _drop(self, keys: Iterable[str]) -> None:
        dropped = list(keys)
        self._orders.drops.extend(dropped)
        self._forget(dropped)

    def _forget(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._copies.pop(key, None)
            if self._held.get(leg_id(key)) == key:
                del self._held[leg_id(key)]
            if key in self._parked:
                del self._parked[key]

    def _handover(self, key: str, tokens: int, blocks: int, *, is_kept: bool) -> dict[str, Any]:
        """vLLM's transfer parameters, by the names that NIXL gives them."""
        host, _, port = self._doors[0].address.rpartition(":")
        return {
            "transport": TRANSPORT,
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_engine_id": self._settings.engine_id,
            "remote_request_id": key,
            "remote_host": host,
            "remote_port": int(port),
            "remote_addresses": [door.address for door in self._doors],
            "remote_streams": [door.stream_address for door in self._doors],
            "remote_block_ids": [list(range(blocks))],
            "remote_num_tokens": tokens if is_kept else 0,
            "tp_size": len(self._doors),
        }

    def _sources(self, params: Mapping[str, Any] | None) -> list[Source]:
        """Where a handover's copy is, by rank; empty where there is none that we can pull."""
        if not params or not params.get("do_remote_prefill"):
            return []
        return sources_of(params, ranks=len(self._doors))


# Run in the worker processes.


def _books(worker: Any) -> Books:
    books: Books = get_kv_transfer_group().connector_worker.books()
    return books


def _renew_copies(worker: Any, keys: list[str]) -> None:
    get_kv_transfer_group().connector_worker.store.renew(keys)


def _drop_copies(worker: Any, keys: list[str]) -> None:
    get_kv_transfer_group().connector_worker.store.drop(keys)
