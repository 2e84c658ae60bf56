"""The store in Redis, for clusters of more than one process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from readahead.core.cluster import Role
from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.store import keys
from readahead.runtime.store.store import StoreUnavailableError, WorkerRecord

_log = structlog.get_logger()

TIMEOUT_S = 2.0
"""Longest wait for one answer; below the default lease of 3 s, so that one stall costs no lease."""
INBOX_CALLS_MAX = 64
"""Calls that wait for the connection; the next one fails at once."""


@dataclass(frozen=True, slots=True)
class _Call:
    script: str
    arguments: tuple[str | int, ...]
    answer: asyncio.Future[Any]


class RedisStore:
    """Worker records in Redis, leases by Redis's own clock.

    One task owns the connection and runs one script at a time, from a bounded inbox. A caller
    that is cancelled abandons its answer and never the connection: replies cannot shift.
    """

    def __init__(self, client: Redis, *, location: str, timeout_s: float = TIMEOUT_S) -> None:
        self._client = client
        self._location = location
        self._timeout_s = timeout_s
        self._inbox: asyncio.Queue[_Call] = asyncio.Queue(INBOX_CALLS_MAX)
        self._owner: asyncio.Task[None] | None = None
        self._is_closed = False

    @classmethod
    def connect(cls, url: str, *, timeout_s: float = TIMEOUT_S) -> RedisStore:
        """A store that dials with its first call, and again after each loss.

        Raises:
            ValueError: not a Redis URL.
        """
        client = Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",  # whatever is in there must not end the connection's task
            protocol=2,
            max_connections=1,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # Every script is idempotent. One retry, since the first send after Redis has
            # restarted meets the old connection.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        )
        at = client.connection_pool.connection_kwargs
        location = str(at.get("path") or f"{at.get('host')}:{at.get('port')}")
        return cls(client, location=location, timeout_s=timeout_s)

    async def register(self, record: WorkerRecord, *, lease_s: float) -> None:
        """See `Store`."""
        await self._run("register", record.worker_id, _to_json(record), _ms(lease_s))

    async def renew(self, worker_id: WorkerId, incarnation: Incarnation, *, lease_s: float) -> bool:
        """See `Store`."""
        return bool(await self._run("renew", worker_id, incarnation, _ms(lease_s)))

    async def withdraw(self, worker_id: WorkerId, incarnation: Incarnation) -> None:
        """See `Store`."""
        await self._run("withdraw", worker_id, incarnation)

    async def workers(self) -> Sequence[WorkerRecord]:
        """See `Store`."""
        records = map(_from_json, await self._run("workers"))
        return sorted(filter(None, records), key=lambda record: record.worker_id)

    async def close(self) -> None:
        """See `Store`. Calls that wait fail."""
        self._is_closed = True
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.wait([self._owner])
        while not self._inbox.empty():
            self._fail(self._inbox.get_nowait(), None)
        await self._client.aclose()

    async def _run(self, script: str, *arguments: str | int) -> Any:
        if self._is_closed:
            raise StoreUnavailableError("the store is closed")
        loop = asyncio.get_running_loop()
        if self._owner is not None and self._owner.done():
            _log.error("redis_connection_failed", exc_info=self._owner.exception())
            self._owner = None
        if self._owner is None:
            # Lives from the first call to close(), which is no lexical scope for a TaskGroup.
            self._owner = loop.create_task(self._own_connection(), name="redis-connection")
        call = _Call(script, arguments, loop.create_future())
        try:
            self._inbox.put_nowait(call)
        except asyncio.QueueFull:
            raise StoreUnavailableError(
                f"{INBOX_CALLS_MAX} calls wait for Redis at {self._location}"
            ) from None
        try:
            async with asyncio.timeout(2 * self._timeout_s):  # one call ahead, and this one
                return await call.answer
        except TimeoutError as error:
            raise StoreUnavailableError(f"Redis at {self._location} is too slow") from error

    async def _own_connection(self) -> None:
        while True:
            call = await self._inbox.get()
            if call.answer.done():
                continue  # its caller has left
            try:
                answer = await self._client.execute_command(  # type: ignore[no-untyped-call]
                    "EVAL", _text(call.script), len(keys.ALL), *keys.ALL, *call.arguments
                )
            except asyncio.CancelledError:
                self._fail(call, None)
                raise
            except (RedisError, OSError) as error:
                self._fail(call, error)
            else:
                if not call.answer.done():
                    call.answer.set_result(answer)

    def _fail(self, call: _Call, error: Exception | None) -> None:
        if call.answer.done():
            return
        failure = StoreUnavailableError(
            f"Redis at {self._location} does not answer: {error}"
            if error
            else "the store is closed"
        )
        failure.__cause__ = error
        call.answer.set_exception(failure)


@cache
def _text(script: str) -> str:
    return (Path(__file__).parent / "lua" / f"{script}.lua").read_text(encoding="utf-8")


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _to_json(record: WorkerRecord) -> str:
    return json.dumps(
        {
            "worker_id": record.worker_id,
            "incarnation": record.incarnation,
            "role": record.role.value,
            "address": record.address,
        }
    )


def _from_json(text: str) -> WorkerRecord | None:
    """None for a record of a build that knows more than this one; it is left to others."""
    try:
        fields = json.loads(text)
        return WorkerRecord(
            worker_id=WorkerId(fields["worker_id"]),
            incarnation=Incarnation(fields["incarnation"]),
            role=Role(fields["role"]),
            address=fields["address"],
        )
    except (ValueError, KeyError, TypeError):
        _log.warning("worker_record_skipped", record=text)
        return None
