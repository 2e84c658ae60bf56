"""What only the store in Redis can get wrong: losses, stalls, cancelled calls, keys left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis_process import RedisProcess, redis_process

from readahead.core.cluster import Role
from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.store import keys
from readahead.runtime.store.connect import connect
from readahead.runtime.store.memory import MemoryStore
from readahead.runtime.store.redis import INBOX_CALLS_MAX, RedisStore
from readahead.runtime.store.store import StoreUnavailableError, WorkerRecord

TIMEOUT_S = 0.3
LIMIT_S = 5.0
LONG_S = 60.0
RECORD = WorkerRecord(
    worker_id=WorkerId("prefill-a"),
    incarnation=Incarnation("first"),
    role=Role.PREFILL,
    address="127.0.0.1:4001",
)


@pytest.fixture
def server() -> Iterator[RedisProcess]:
    with redis_process() as process:
        yield process


@pytest.fixture
async def store(server: RedisProcess) -> AsyncIterator[RedisStore]:
    store = RedisStore.connect(server.url, timeout_s=TIMEOUT_S)
    yield store
    await store.close()


async def test_every_key_is_named_and_has_an_end(server: RedisProcess, store: RedisStore) -> None:
    """Nothing is written but the keys of `keys`, and none without a TTL of the longest lease."""
    await store.register(RECORD, lease_s=LONG_S)
    other = replace(RECORD, worker_id=WorkerId("prefill-b"))
    await store.register(other, lease_s=1.0)
    assert await store.renew(other.worker_id, other.incarnation, lease_s=1.0)
    async with Redis.from_url(server.url, decode_responses=True) as client:
        assert sorted(await client.keys("*")) == sorted(keys.ALL)
        for key in keys.ALL:
            assert LONG_S - 5 < await client.ttl(key) <= LONG_S
    await store.withdraw(RECORD.worker_id, RECORD.incarnation)
    await store.withdraw(other.worker_id, other.incarnation)
    async with Redis.from_url(server.url) as client:
        assert await client.keys("*") == []


async def test_what_has_run_out_is_dropped(server: RedisProcess, store: RedisStore) -> None:
    """Workers that come and go leave nothing behind while others stay."""
    await store.register(RECORD, lease_s=LONG_S)
    for index in range(5):
        gone = replace(RECORD, worker_id=WorkerId(f"gone-{index}"))
        await store.register(gone, lease_s=0.01)
    async with asyncio.timeout(LIMIT_S):
        while True:
            if len(await store.workers()) == 1:
                break
            await asyncio.sleep(0.005)
    async with Redis.from_url(server.url) as client:
        assert await client.zcard(keys.WORKER_LEASES) == 1
        assert await client.hlen(keys.WORKER_RECORDS) == 1


async def test_a_dead_redis_is_told_promptly_and_recovered_from(
    server: RedisProcess, store: RedisStore
) -> None:
    """While Redis is gone every call says so; once it is back, calls work, without a new store."""
    await store.register(RECORD, lease_s=LONG_S)
    server.kill()
    for _ in range(3):
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1"):
                await store.workers()
    server.start()
    assert not await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S)
    await store.register(RECORD, lease_s=LONG_S)
    assert list(await store.workers()) == [RECORD]


async def test_a_restart_between_two_calls_is_not_noticed(
    server: RedisProcess, store: RedisStore
) -> None:
    """The first call after a restart meets a dead connection and makes a new one."""
    await store.register(RECORD, lease_s=LONG_S)
    server.kill()
    server.start()
    assert list(await store.workers()) == []


async def test_a_stalled_redis_is_told_within_the_limit(
    server: RedisProcess, store: RedisStore
) -> None:
    """Redis that takes calls and answers none costs a bounded wait, however many call."""
    await store.register(RECORD, lease_s=LONG_S)
    server.freeze()
    callers = INBOX_CALLS_MAX // 2
    assert callers * TIMEOUT_S > LIMIT_S
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_fails(store)) for _ in range(callers)]
    assert all(task.result() for task in tasks)
    server.thaw()
    assert list(await store.workers()) == [RECORD]


async def test_a_full_inbox_refuses_at_once(server: RedisProcess, store: RedisStore) -> None:
    """The inbox has a bound and says so."""
    await store.register(RECORD, lease_s=LONG_S)
    server.freeze()
    async with asyncio.TaskGroup() as group:
        for _ in range(INBOX_CALLS_MAX):
            group.create_task(_fails(store))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match=f"{INBOX_CALLS_MAX} calls wait"):
            await store.workers()


async def test_cancelled_calls_do_not_shift_replies(
    server: RedisProcess, store: RedisStore
) -> None:
    """A caller that leaves, at whatever moment, leaves no answer behind for the next one."""
    await store.register(RECORD, lease_s=LONG_S)
    for turns in range(60):
        task = asyncio.ensure_future(store.workers())
        for _ in range(turns % 20):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S) is True
        assert await store.renew(RECORD.worker_id, Incarnation("no"), lease_s=LONG_S) is False


async def test_a_cancelled_call_during_a_stall_does_not_shift_replies(
    server: RedisProcess, store: RedisStore
) -> None:
    """Not even when its answer comes long after."""
    await store.register(RECORD, lease_s=LONG_S)
    server.freeze()
    task = asyncio.ensure_future(store.workers())
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    server.thaw()
    assert await store.renew(RECORD.worker_id, RECORD.incarnation, lease_s=LONG_S) is True
    assert list(await store.workers()) == [RECORD]


async def test_one_connection_serves_all_callers(server: RedisProcess, store: RedisStore) -> None:
    """However many call at once."""
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(store.workers())
    async with Redis.from_url(server.url) as client:
        assert int((await client.info("clients"))["connected_clients"]) == 2


async def test_a_record_of_a_newer_build_is_left_to_others(
    server: RedisProcess, store: RedisStore
) -> None:
    """A role that this build does not know hides no other worker."""
    await store.register(RECORD, lease_s=LONG_S)
    async with Redis.from_url(server.url) as client:
        newer = '{"worker_id": "new", "incarnation": "1", "role": "draft", "address": ""}'
        await client.hset(keys.WORKER_RECORDS, "new", newer)
        await client.zadd(keys.WORKER_LEASES, {"new": 1e15})
    assert list(await store.workers()) == [RECORD]


async def test_a_closed_store_says_so(server: RedisProcess, store: RedisStore) -> None:
    """Calls that wait at the close fail, and so do later ones; closing twice is fine."""
    await store.register(RECORD, lease_s=LONG_S)
    server.freeze()
    waiting = asyncio.ensure_future(_fails(store))
    await asyncio.sleep(0)
    await store.close()
    assert await waiting
    assert await _fails(store)
    await store.close()
    server.thaw()


async def test_a_wrong_password_is_told_without_showing_it(server: RedisProcess) -> None:
    """Errors name where, and no secret."""
    store = RedisStore.connect(f"redis://:hunter2@127.0.0.1:{server.port}/0", timeout_s=TIMEOUT_S)
    with pytest.raises(StoreUnavailableError) as caught:
        await store.workers()
    assert "hunter2" not in str(caught.value)
    await store.close()


async def test_the_url_decides() -> None:
    """Empty: memory. Anything that is not Redis is refused before anything runs."""
    assert isinstance(connect(""), MemoryStore)
    with pytest.raises(ValueError, match="redis://"):
        connect("http://127.0.0.1:6379")
    store = connect("redis://127.0.0.1:1/0")
    assert isinstance(store, RedisStore)
    assert await _fails(store)
    await store.close()


async def _fails(store: RedisStore) -> bool:
    try:
        await store.workers()
    except StoreUnavailableError:
        return True
    return False
