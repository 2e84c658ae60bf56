"""Which workers a router uses, as the store says and as the wire shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cluster_in_process import (
    Cluster,
    cluster,
    collect,
    generate_request,
    record_of,
    router_config,
    start_worker,
    wait_joined,
)
from fake_engine import FakeEngine, silent
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.request import RequestId, Stage, WorkerId
from readahead.runtime.clock import monotonic_s
from readahead.runtime.store.memory import MemoryStore
from readahead.runtime.store.store import StoreUnavailableError, WorkerRecord

SHORT = [1, 2, 3]
LEASE_S = 100.0


class FlakyStore(MemoryStore):
    """A store that a test can take away."""

    is_down = False

    async def workers(self) -> Sequence[WorkerRecord]:
        if self.is_down:
            raise StoreUnavailableError("a test said so")
        return await super().workers()


@asynccontextmanager
async def registered() -> AsyncIterator[tuple[Cluster, FlakyStore, FakeEngine]]:
    """A cluster of one decode worker whose record the test holds."""
    store = FlakyStore(monotonic_s)
    engine = FakeEngine(silent, model="toy")
    engines = {"d0": (Role.DECODE, engine)}
    async with cluster(engines, store=store, is_awaited=False) as running:
        await store.register(record_of(running.workers["d0"]), lease_s=LEASE_S)
        await wait_joined(running.router, 1)
        yield running, store, engine


async def test_worker_that_leaves_the_store_keeps_its_legs_and_gets_no_more() -> None:
    """Its stream is whole, so what runs goes on; listed again, it is used again."""
    async with registered() as (running, store, engine):
        record = record_of(running.workers["d0"])
        statistics = running.router.driver.state.statistics
        first = running.stub.Generate(generate_request(SHORT, request_id="first"))
        await wait_until(lambda: bool(engine.legs))
        await store.withdraw(record.worker_id, record.incarnation)
        await wait_until(lambda: statistics().workers[Role.DECODE] == 0)
        second = running.stub.Generate(generate_request(SHORT, request_id="second"))
        await wait_until(lambda: RequestId("second") in running.router.driver.sessions)
        assert statistics().by_stage[Stage.QUEUED] == 1
        assert len(engine.legs) == 1
        await store.register(record, lease_s=LEASE_S)
        await wait_until(lambda: len(engine.legs) == 2)
        first.cancel()
        second.cancel()


async def test_without_the_store_what_is_known_stays() -> None:
    """Requests are served all the while."""
    async with registered() as (running, store, engine):
        store.is_down = True
        engine.script = FakeEngine(model="toy").script
        async with asyncio.timeout(5):
            for _ in range(5):
                answer = await collect(running.stub.Generate(generate_request(SHORT)))
                assert answer.error is None
                await asyncio.sleep(0.03)
        assert list(running.router.driver.links) == ["d0"]
        store.is_down = False


async def test_a_new_incarnation_replaces_the_old_one_at_once() -> None:
    """Even while the old one's stream is whole: two processes under one name are one too many."""
    async with registered() as (running, store, old):
        call = running.stub.Generate(generate_request(SHORT, request_id="r"))
        await wait_until(lambda: bool(old.legs))
        new = FakeEngine(model="toy")
        successor = await start_worker(new, role=Role.DECODE, worker_id="d0")
        try:
            await store.register(record_of(successor), lease_s=LEASE_S)
            answer = await collect(call)
            assert answer.error is None
            assert len(answer.finished) == 1
            link = running.router.driver.links[WorkerId("d0")]
            assert link.description.incarnation == successor.worker.identity.incarnation
            await wait_until(lambda: not old.legs)
        finally:
            await successor.stop()


async def test_a_record_that_another_worker_answers_is_not_used() -> None:
    """An address that has been given to somebody else."""
    async with registered() as (running, store, _):
        real = record_of(running.workers["d0"])
        await store.register(
            WorkerRecord(
                worker_id=WorkerId("d9"),
                incarnation=real.incarnation,
                role=Role.DECODE,
                address=real.address,
            ),
            lease_s=LEASE_S,
        )
        answers = running.router.driver.links
        await asyncio.sleep(3 * router_config().membership.poll_s)
        assert list(answers) == ["d0"]


async def test_static_addresses_survive_a_store_that_goes_and_comes() -> None:
    """The records are put back by themselves."""
    store = FlakyStore(monotonic_s)
    engine = FakeEngine(model="toy")
    worker = await start_worker(engine, role=Role.DECODE, worker_id="d0")
    try:
        config = router_config(workers=[worker.address])
        async with cluster({}, config=config, store=store, is_awaited=False) as running:
            await wait_joined(running.router, 1)
            store.is_down = True
            await store.withdraw(WorkerId("d0"), worker.worker.identity.incarnation)
            await asyncio.sleep(0)
            store.is_down = False
            statistics = running.router.driver.state.statistics
            await wait_until(lambda: statistics().workers[Role.DECODE] == 1)
            answer = await collect(running.stub.Generate(generate_request(SHORT)))
            assert answer.error is None
    finally:
        await worker.stop()
