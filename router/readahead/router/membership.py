"""Keeps one link to each worker that the store knows."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

import structlog

from readahead.core.errors import ReadaheadError
from readahead.core.request import WorkerId
from readahead.router.driver import Driver
from readahead.router.links import LinkEars, OnStep, WorkerLink
from readahead.runtime.config import PeerTlsConfig
from readahead.runtime.rpc.channel import NO_TLS
from readahead.runtime.store.store import Store, StoreUnavailableError, WorkerRecord

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True, eq=False)
class _Member:
    """A worker known by its record: being dialled, or linked."""

    record: WorkerRecord
    task: asyncio.Task[None]
    link: WorkerLink | None = None
    """Set once it has joined."""
    is_listed: bool = True
    """The store has its record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """What every link is bounded by, and how its peer is trusted."""

    silence_s_max: float
    message_bytes_max: int
    tls: PeerTlsConfig = NO_TLS


@dataclass(slots=True, kw_only=True)
class Membership:
    """Polls the store and dials what is new there.

    A worker whose stream breaks is lost at once, with its legs, and is dialled again at the next
    poll if its record is still there. One whose record has gone while its stream is whole takes
    no new legs: it is draining, or the store has forgotten it.
    """

    store: Store
    driver: Driver
    on_step: OnStep
    model: str
    poll_s: float
    limits: LinkLimits
    _members: dict[WorkerId, _Member] = field(default_factory=dict)
    _refused: dict[WorkerId, str] = field(default_factory=dict)
    """Why each worker could not be dialled last time, so that a cause is logged once."""
    _is_store_down: bool = False
    _dials: int = 0
    _router_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    async def run(self) -> None:
        """Polls until cancelled."""
        async with asyncio.TaskGroup() as links:
            while True:
                try:
                    records = await self.store.workers()
                except StoreUnavailableError as error:
                    self._store_is_down(str(error))
                else:
                    self._store_is_up()
                    self._reconcile({record.worker_id: record for record in records}, links)
                await asyncio.sleep(self.poll_s)

    def _reconcile(self, records: dict[WorkerId, WorkerRecord], links: asyncio.TaskGroup) -> None:
        for worker_id, member in list(self._members.items()):
            record = records.get(worker_id)
            if member.task.done():
                del self._members[worker_id]
            elif record is not None and record.incarnation != member.record.incarnation:
                if member.link is not None:
                    member.link.stop(f"replaced by incarnation {record.incarnation}")
            else:
                self._list(member, is_listed=record is not None)
        for worker_id, record in records.items():
            if worker_id not in self._members:
                task = links.create_task(self._serve(record))
                self._members[worker_id] = _Member(record=record, task=task)
        for worker_id in self._refused.keys() - records.keys():
            del self._refused[worker_id]

    def _list(self, member: _Member, *, is_listed: bool) -> None:
        if member.is_listed == is_listed:
            return
        member.is_listed = is_listed
        link = member.link
        if link is None or link.is_draining:
            return
        log.info("worker_listed" if is_listed else "worker_unlisted", worker_id=link.worker_id)
        if is_listed:
            self.driver.join(link)
        else:
            self.driver.rest(link)

    async def _serve(self, record: WorkerRecord) -> None:
        """Dials a worker and stays with it until the link ends."""
        self._dials += 1
        link = WorkerLink(
            record.address,
            router_id=f"{self._router_id}.{self._dials}",
            silence_s_max=self.limits.silence_s_max,
            message_bytes_max=self.limits.message_bytes_max,
            tls=self.limits.tls,
            ears=LinkEars(on_step=self.on_step, on_draining=self._on_draining),
        )
        try:
            if await self._open(link, record):
                await self._attend(link, record)
        finally:
            await link.close()

    async def _open(self, link: WorkerLink, record: WorkerRecord) -> bool:
        try:
            about = await link.open()
        except ReadaheadError as error:
            return self._refuse(record, error.message)
        if (about.worker_id, about.incarnation) != (record.worker_id, record.incarnation):
            return self._refuse(record, f"{about.worker_id} answers, as {about.incarnation}")
        if about.model != self.model:
            return self._refuse(record, f"it serves {about.model!r}, not {self.model!r}")
        return True

    async def _attend(self, link: WorkerLink, record: WorkerRecord) -> None:
        about = link.description
        self._refused.pop(record.worker_id, None)
        log.info(
            "worker_joined",
            worker_id=about.worker_id,
            incarnation=about.incarnation,
            role=about.role.value,
            engine=about.engine,
            kv_transport=about.kv_transport,
            address=record.address,
        )
        self._members[record.worker_id].link = link
        cause = "the router stops"
        self.driver.join(link)
        try:
            cause = await link.run()
            log.warning("worker_lost", worker_id=about.worker_id, cause=cause)
        finally:
            self.driver.leave(link, cause)

    def _refuse(self, record: WorkerRecord, why: str) -> bool:
        if self._refused.get(record.worker_id) != why:
            self._refused[record.worker_id] = why
            log.warning(
                "worker_refused", worker_id=record.worker_id, address=record.address, cause=why
            )
        return False

    def _on_draining(self, link: WorkerLink) -> None:
        log.info("worker_drained", worker_id=link.worker_id)
        self.driver.rest(link)

    def _store_is_down(self, cause: str) -> None:
        if not self._is_store_down:
            self._is_store_down = True
            log.warning("store_lost", cause=cause, effect="membership stays as it is")

    def _store_is_up(self) -> None:
        if self._is_store_down:
            self._is_store_down = False
            log.info("store_found")
