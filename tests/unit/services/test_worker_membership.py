"""A worker's record in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.clock import monotonic_s
from readahead.runtime.store.memory import MemoryStore
from readahead.runtime.store.store import StoreUnavailableError, WorkerRecord
from readahead.services.worker.identity import WorkerIdentity
from readahead.services.worker.membership import Membership

LEASE_S = 0.03

IDENTITY = WorkerIdentity(
    worker_id=WorkerId("w"),
    incarnation=Incarnation("first"),
    role=Role.DECODE,
    address="127.0.0.1:1",
    prefill_credits=4,
)


class FlakyStore(MemoryStore):
    """A store that can be taken away."""

    def __init__(self) -> None:
        super().__init__(monotonic_s)
        self.is_away = False
        self.calls = 0

    async def register(self, record: WorkerRecord, *, lease_s: float) -> None:
        self._answer()
        await super().register(record, lease_s=lease_s)

    async def renew(self, worker_id: WorkerId, incarnation: Incarnation, *, lease_s: float) -> bool:
        self._answer()
        return await super().renew(worker_id, incarnation, lease_s=lease_s)

    def _answer(self) -> None:
        self.calls += 1
        if self.is_away:
            raise StoreUnavailableError("away")

    def holder(self) -> str | None:
        lease = self._leases.get(IDENTITY.worker_id)
        return None if lease is None else lease.record.incarnation


async def during(
    store: FlakyStore, body: Callable[[Membership, list[ReadaheadError]], Awaitable[None]]
) -> None:
    """Runs the body while a membership keeps its record."""
    fenced: list[ReadaheadError] = []
    membership = Membership(store, IDENTITY, lease_s=LEASE_S, on_fenced=fenced.append)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(membership.run())
        await wait_until(lambda: store.calls > 0)
        await body(membership, fenced)
        task.cancel()


async def test_record_outlives_its_lease() -> None:
    """A live worker stays registered for longer than one lease, and withdraws at the end."""
    store = FlakyStore()

    async def body(membership: Membership, fenced: list[ReadaheadError]) -> None:
        await wait_until(lambda: store.calls > 10)
        assert [r.address for r in await store.workers()] == ["127.0.0.1:1"]
        assert not fenced
        await membership.withdraw()
        assert not await store.workers()

    await during(store, body)


async def test_lost_lease_is_taken_again() -> None:
    """A lease that ran out is registered anew, with the same incarnation."""
    store = FlakyStore()

    async def body(_: Membership, fenced: list[ReadaheadError]) -> None:
        await store.withdraw(IDENTITY.worker_id, IDENTITY.incarnation)
        await wait_until(lambda: store.holder() == "first")
        assert not fenced

    await during(store, body)


async def test_another_incarnation_fences_this_one() -> None:
    """When another process takes the name, this one says so once and leaves its record alone."""
    store = FlakyStore()

    async def body(membership: Membership, fenced: list[ReadaheadError]) -> None:
        record = WorkerRecord(
            worker_id=IDENTITY.worker_id,
            incarnation=Incarnation("second"),
            role=Role.DECODE,
            address="127.0.0.1:2",
        )
        await store.register(record, lease_s=60)
        await wait_until(lambda: bool(fenced))
        await membership.withdraw()
        assert store.holder() == "second"
        assert [error.reason for error in fenced] == [Reason.STALE_INCARNATION]

    await during(store, body)


async def test_store_away_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Without its store the worker goes on trying, and logs the loss and the return once each."""
    store = FlakyStore()

    async def body(_: Membership, fenced: list[ReadaheadError]) -> None:
        for is_away in (True, False):
            store.is_away = is_away
            calls = store.calls
            await wait_until(lambda calls=calls: store.calls > calls + 5)  # type: ignore[misc]
        assert store.holder() == "first"
        assert not fenced

    await during(store, body)
    printed = capsys.readouterr().out
    assert printed.count("store_lost") == 1
    assert printed.count("store_regained") == 1
