"""One suite of laws over every store: the one in memory is a verified fake of the one in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis_process import RedisProcess, redis_process

from readahead.core.cluster import Role
from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.clock import monotonic_s
from readahead.runtime.store.memory import MemoryStore
from readahead.runtime.store.redis import RedisStore
from readahead.runtime.store.store import Store, WorkerRecord

LONG_S = 60.0
SHORT_S = 0.05
LIMIT_S = 5.0

RECORD = WorkerRecord(
    worker_id=WorkerId("decode-a"),
    incarnation=Incarnation("first"),
    role=Role.DECODE,
    address="127.0.0.1:4001",
)
SUCCESSOR = replace(RECORD, incarnation=Incarnation("second"), address="127.0.0.1:4002")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with redis_process() as process:
        yield process


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryStore(monotonic_s)
        return
    process: RedisProcess = request.getfixturevalue("server")
    async with Redis.from_url(process.url) as client:
        await client.flushall()
    redis = RedisStore.connect(process.url)
    yield redis
    await redis.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.005)


async def ids(store: Store) -> list[str]:
    return [record.worker_id for record in await store.workers()]


async def test_a_registered_worker_is_listed_as_it_was(store: Store) -> None:
    """What goes in comes out."""
    assert list(await store.workers()) == []
    await store.register(RECORD, lease_s=LONG_S)
    assert list(await store.workers()) == [RECORD]


async def test_workers_are_sorted_by_id(store: Store) -> None:
    """The order does not depend on who came first."""
    for name in ("b", "c", "a", "B", "10", "9"):
        await store.register(replace(RECORD, worker_id=WorkerId(name)), lease_s=LONG_S)
    assert await ids(store) == sorted(["b", "c", "a", "B", "10", "9"])


async def test_registering_twice_changes_nothing_but_the_lease(store: Store) -> None:
    """Registering is idempotent."""
    await store.register(RECORD, lease_s=SHORT_S)
    await store.register(RECORD, lease_s=LONG_S)
    assert list(await store.workers()) == [RECORD]
    assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)


async def test_an_expired_record_disappears_and_others_stay(store: Store) -> None:
    """A lease that is not renewed ends by itself."""
    other = replace(RECORD, worker_id=WorkerId("other"))
    await store.register(other, lease_s=LONG_S)
    await store.register(RECORD, lease_s=SHORT_S)

    async def is_gone() -> bool:
        return await ids(store) == ["other"]

    await until(is_gone)


async def test_renewing_after_the_end_is_refused(store: Store) -> None:
    """A lease that has run out cannot be revived, whether or not anybody has looked since."""
    await store.register(replace(RECORD, worker_id=WorkerId("witness")), lease_s=LONG_S)
    await store.register(RECORD, lease_s=SHORT_S)

    async def is_refused() -> bool:
        return not await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=SHORT_S / 10)

    await until(is_refused)
    assert not await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)
    assert await ids(store) == ["witness"]
    await store.register(RECORD, lease_s=LONG_S)
    assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)


async def test_a_renewed_lease_outlives_its_first_term(store: Store) -> None:
    """A renewal counts from the moment it is made."""
    witness = replace(RECORD, worker_id=WorkerId("witness"))
    await store.register(RECORD, lease_s=SHORT_S)
    assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)
    await store.register(witness, lease_s=2 * SHORT_S)

    async def witness_is_gone() -> bool:
        return await ids(store) == [RECORD.worker_id]

    await until(witness_is_gone)


async def test_a_renewal_may_shorten_a_lease(store: Store) -> None:
    """The last term given is the one that holds."""
    await store.register(RECORD, lease_s=LONG_S)
    assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=SHORT_S)

    async def is_gone() -> bool:
        return await ids(store) == []

    await until(is_gone)


async def test_a_new_incarnation_fences_the_old_one(store: Store) -> None:
    """From a restart on, the old process can neither renew nor withdraw."""
    await store.register(RECORD, lease_s=LONG_S)
    await store.register(SUCCESSOR, lease_s=LONG_S)
    assert not await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)
    await store.withdraw(RECORD.worker_id, RECORD.incarnation)
    assert list(await store.workers()) == [SUCCESSOR]
    assert await store.renew(SUCCESSOR.worker_id, SUCCESSOR.incarnation, lease_s=LONG_S)


async def test_a_withdrawn_worker_is_gone_at_once(store: Store) -> None:
    """Withdrawing needs no lease to end, and is idempotent."""
    await store.register(RECORD, lease_s=LONG_S)
    await store.withdraw(RECORD.worker_id, RECORD.incarnation)
    assert list(await store.workers()) == []
    assert not await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)
    await store.withdraw(RECORD.worker_id, RECORD.incarnation)


async def test_an_unknown_worker_cannot_be_renewed(store: Store) -> None:
    """Nobody is made up."""
    assert not await store.renew(WorkerId("nobody"), RECORD.incarnation, lease_s=LONG_S)
    assert list(await store.workers()) == []


async def test_names_are_taken_as_they_are(store: Store) -> None:
    """Neither quotes nor letters beyond ASCII are changed."""
    odd = replace(RECORD, worker_id=WorkerId("ü \"'\\{}:1"), incarnation=Incarnation("é\n"))
    await store.register(odd, lease_s=LONG_S)
    assert list(await store.workers()) == [odd]
    assert await store.renew(odd.worker_id, odd.incarnation, lease_s=LONG_S)


async def test_concurrent_calls_each_get_their_own_answer(store: Store) -> None:
    """Answers are not mixed up between callers."""
    await store.register(RECORD, lease_s=LONG_S)
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                store.renew(
                    RECORD.worker_id, Incarnation("first" if index % 3 else "no"), lease_s=LONG_S
                )
            )
            for index in range(30)
        ]
    assert [task.result() for task in tasks] == [bool(index % 3) for index in range(30)]
