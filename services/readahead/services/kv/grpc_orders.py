"""What the two sides of the gRPC connector tell each other with each step, and where a handover's
copy is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)

from readahead.services.kv.grpc_target import Source

TRANSPORT = "grpc"
"""In a handover: its source keeps the KV on the host, where NIXL cannot read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Copy these blocks to the host, before the step's forward pass can overwrite them."""

    key: str
    block_ids: Sequence[int]
    is_leased: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Bring a copy's blocks from `first_block` on into these blocks of the cache."""

    request_id: str
    block_ids: Sequence[int]
    first_block: int
    key: str = ""
    """Of a copy of this engine; "" where `sources` says where it is."""
    sources: Sequence[Source] = ()
    """One per rank."""


@dataclass(slots=True, kw_only=True)
class StepOrders(KVConnectorMetadata):  # type: ignore[misc]  # vLLM is untyped here
    """Scheduler to workers. Carried out in the order of the fields."""

    saves: list[Save] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    """Copies that from now on wait for another engine."""
    drops: list[str] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    """Requests whose pull is not wanted any more."""
    loads: list[Load] = field(default_factory=list)
    beats: list[Sequence[Source]] = field(default_factory=list)
    """Copies elsewhere that requests here still wait to pull."""
    frees: list[Sequence[Source]] = field(default_factory=list)
    """Copies elsewhere that nobody here needs."""
    is_idle: bool = False
    """The step computes nothing, so that it may wait for a pull."""

    def is_empty(self) -> bool:
        """Iff there is nothing to do."""
        return not any((
            self.saves, self.leases, self.drops, self.cancels, self.loads, self.beats, self.frees,
        ))  # fmt: skip


@dataclass(slots=True, kw_only=True)
class StepReport(KVConnectorWorkerMetadata):  # type: ignore[misc]  # vLLM is untyped here
    """Workers to scheduler."""

    gone: set[str] = field(default_factory=set)
    """Copies that are no longer here, whoever ended them."""
    transfers: int = 0
    transfer_bytes: int = 0
    failures: dict[str, str] = field(default_factory=dict)
    """Reason by request, of loads that did not bring everything."""

    def aggregate(self, other: StepReport) -> StepReport:
        """All ranks' reports as one."""
        return StepReport(
            gone=self.gone | other.gone,
            transfers=max(self.transfers, other.transfers),
            transfer_bytes=self.transfer_bytes + other.transfer_bytes,
            failures=other.failures | self.failures,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Door(KVConnectorHandshakeMetadata):  # type: ignore[misc]  # vLLM is untyped here
    """Where a rank serves its copies, and how many blocks it can keep."""

    address: str
    stream_address: str
    """Where it sends them without gRPC's library."""
    capacity_blocks: int
    block_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What a rank has, asked for between steps."""

    copies: Mapping[str, int]
    """Blocks by key."""
    counts: Mapping[str, int]
    """What it did so far."""


def sources_of(params: Mapping[str, Any] | None, *, ranks: int) -> list[Source]:
    """Where a handover's copy can be had over gRPC, by rank; empty where it cannot be."""
    if not params:
        return []
    addresses = params.get("remote_addresses")
    if not isinstance(addresses, list) or len(addresses) != ranks:
        return []
    streams = params.get("remote_streams")
    if not isinstance(streams, list) or len(streams) != ranks:
        streams = [""] * ranks
    return [
        Source(
            address=str(address),
            engine_id=params["remote_engine_id"],
            key=params["remote_request_id"],
            stream_address=str(stream),
        )
        for address, stream in zip(addresses, streams, strict=True)
    ]
