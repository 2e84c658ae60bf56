"""The store of a router on its own: one process's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.store.store import WorkerRecord


@dataclass(frozen=True, slots=True)
class _Lease:
    record: WorkerRecord
    ends_at: float


class MemoryStore:
    """Keeps the records in a dict. Leases run by `now`, seconds on a monotonic clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._leases: dict[WorkerId, _Lease] = {}

    async def register(self, record: WorkerRecord, *, lease_s: float) -> None:
        """See `Store`."""
        self._leases[record.worker_id] = _Lease(record, self._now() + lease_s)

    async def renew(self, worker_id: WorkerId, incarnation: Incarnation, *, lease_s: float) -> bool:
        """See `Store`."""
        self._drop_expired()
        lease = self._leases.get(worker_id)
        if lease is None or lease.record.incarnation != incarnation:
            return False
        self._leases[worker_id] = _Lease(lease.record, self._now() + lease_s)
        return True

    async def withdraw(self, worker_id: WorkerId, incarnation: Incarnation) -> None:
        """See `Store`."""
        lease = self._leases.get(worker_id)
        if lease is not None and lease.record.incarnation == incarnation:
            del self._leases[worker_id]

    async def workers(self) -> Sequence[WorkerRecord]:
        """See `Store`."""
        self._drop_expired()
        return [self._leases[worker_id].record for worker_id in sorted(self._leases)]

    async def close(self) -> None:
        """Nothing to release."""

    def _drop_expired(self) -> None:
        now = self._now()
        self._leases = {key: lease for key, lease in self._leases.items() if lease.ends_at > now}
