"""Where processes find each other: worker records under leases, fenced by incarnation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from readahead.core.cluster import Role
from readahead.core.request import Incarnation, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """What a router needs to dial a worker."""

    worker_id: WorkerId
    incarnation: Incarnation
    role: Role
    address: str
    """host:port of its gRPC server."""


class Store(Protocol):
    """Control-plane state; never on a token's path.

    A record lives as long as its lease, by the store's own clock. Registering a worker id anew
    replaces its record and fences every older incarnation: their renewals fail from then on.

    All methods raise `StoreUnavailableError` when the store cannot be reached.
    """

    async def register(self, record: WorkerRecord, *, lease_s: float) -> None:
        """Puts the record in, replacing any other incarnation of the same worker."""
        ...

    async def renew(self, worker_id: WorkerId, incarnation: Incarnation, *, lease_s: float) -> bool:
        """Extends the lease. False iff the lease has run out or another incarnation holds it."""
        ...

    async def withdraw(self, worker_id: WorkerId, incarnation: Incarnation) -> None:
        """Removes the record at once, if this incarnation holds it."""
        ...

    async def workers(self) -> Sequence[WorkerRecord]:
        """Every record whose lease has not run out, by worker id."""
        ...

    async def close(self) -> None:
        """Releases connections; the records stay."""
        ...


class StoreUnavailableError(Exception):
    """The store cannot be reached; what is known stays in force."""
