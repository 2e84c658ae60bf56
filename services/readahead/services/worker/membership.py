"""Keeps this worker's record in the store for as long as it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.store.store import Store, StoreUnavailableError, WorkerRecord
from readahead.services.worker import metrics
from readahead.services.worker.identity import WorkerIdentity

RENEWALS_PER_LEASE = 3
"""Two renewals may be lost before the lease is."""

_log = structlog.get_logger()


class Membership:
    """Registers, renews, withdraws. Without the store the worker serves on."""

    def __init__(
        self,
        store: Store,
        identity: WorkerIdentity,
        *,
        lease_s: float,
        on_fenced: Callable[[ReadaheadError], None],
    ) -> None:
        self._store = store
        self._record = WorkerRecord(
            worker_id=identity.worker_id,
            incarnation=identity.incarnation,
            role=identity.role,
            address=identity.address,
        )
        self._lease_s = lease_s
        self._on_fenced = on_fenced
        self._is_registered = False
        self._is_reachable: bool | None = None

    async def run(self) -> None:
        """Keeps the record until it is cancelled or another incarnation takes the name."""
        while True:
            try:
                async with asyncio.timeout(self._lease_s):
                    is_ours = await self._keep()
            except (StoreUnavailableError, TimeoutError) as error:
                self._note_reachable(False, cause=str(error) or "no answer within a lease")
            else:
                self._note_reachable(True)
                if not is_ours:
                    self._say_fenced()
                    return
            await asyncio.sleep(self._lease_s / RENEWALS_PER_LEASE)

    async def withdraw(self) -> None:
        """Removes the record, so that routers need not wait for the lease; at most one lease."""
        if not self._is_registered:
            return
        try:
            async with asyncio.timeout(self._lease_s):
                await self._store.withdraw(self._record.worker_id, self._record.incarnation)
        except (StoreUnavailableError, TimeoutError) as error:
            _log.warning("worker_not_withdrawn", cause=str(error))

    async def _keep(self) -> bool:
        """Registers or renews. False iff another incarnation has taken the name."""
        worker_id, incarnation = self._record.worker_id, self._record.incarnation
        if self._is_registered:
            if await self._store.renew(worker_id, incarnation, lease_s=self._lease_s):
                return True
            for record in await self._store.workers():
                if record.worker_id == worker_id and record.incarnation != incarnation:
                    return False
            _log.warning("worker_lease_lost", worker_id=worker_id)
        await self._store.register(self._record, lease_s=self._lease_s)
        self._is_registered = True
        _log.info("worker_registered", worker_id=worker_id, incarnation=incarnation)
        return True

    def _note_reachable(self, is_reachable: bool, *, cause: str = "") -> None:
        metrics.STORE_REACHABLE.set(is_reachable)
        if is_reachable == self._is_reachable:
            return
        if not is_reachable:
            _log.warning("store_lost", cause=cause, effect="serving on; membership stands still")
        elif self._is_reachable is not None:
            _log.info("store_regained")
        self._is_reachable = is_reachable

    def _say_fenced(self) -> None:
        _log.error(
            "worker_fenced",
            worker_id=self._record.worker_id,
            incarnation=self._record.incarnation,
            action="another process runs under this worker id; give each its own",
        )
        self._on_fenced(
            ReadaheadError(
                Reason.STALE_INCARNATION,
                f"another process runs as worker {self._record.worker_id}",
            )
        )
