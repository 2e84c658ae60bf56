"""Registers workers that are given by address, for a router without Redis."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc.aio
import structlog

from readahead.core.errors import ReadaheadError
from readahead.router import wire
from readahead.runtime.config import MembershipConfig, PeerTlsConfig
from readahead.runtime.rpc.channel import NO_TLS, channel
from readahead.runtime.store.store import Store, StoreUnavailableError, WorkerRecord
from readahead.v1 import worker_service_pb2 as pb
from readahead.v1 import worker_service_pb2_grpc

_MESSAGE_BYTES_MAX = 64 << 10
"""A description has a dozen short fields."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRegistrar:
    """Does for each address what a worker does for itself where there is a Redis.

    It renews a worker's record as long as the worker answers, three times a lease.
    """

    store: Store
    config: MembershipConfig
    tls: PeerTlsConfig = NO_TLS

    async def run(self) -> None:
        """Keeps the records until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for address in self.config.workers:
                tasks.create_task(self._keep(address))

    async def _keep(self, address: str) -> None:
        known: WorkerRecord | None = None
        period_s = self.config.lease_s / 3
        async with channel(address, message_bytes_max=_MESSAGE_BYTES_MAX, tls=self.tls) as peer:
            stub: worker_service_pb2_grpc.WorkerServiceAsyncStub = (
                worker_service_pb2_grpc.WorkerServiceStub(peer)  # type: ignore[assignment]
            )
            while True:
                record = await self._ask(stub, address, period_s=period_s)
                if record is None:
                    # It starts, or is gone; then its lease runs out.
                    await asyncio.sleep(min(period_s, self.config.poll_s))
                    continue
                if await self._renew(record, is_known=known == record):
                    known = record
                await asyncio.sleep(period_s)

    async def _renew(self, record: WorkerRecord, *, is_known: bool) -> bool:
        """Keeps the record in the store. False iff the store cannot be reached."""
        lease_s = self.config.lease_s
        try:
            if not is_known or not await self.store.renew(
                record.worker_id, record.incarnation, lease_s=lease_s
            ):
                await self.store.register(record, lease_s=lease_s)
        except StoreUnavailableError:
            return False  # the membership's poll says so in the log
        return True

    async def _ask(
        self,
        stub: worker_service_pb2_grpc.WorkerServiceAsyncStub,
        address: str,
        *,
        period_s: float,
    ) -> WorkerRecord | None:
        try:
            answer = await stub.Describe(pb.DescribeRequest(), timeout=period_s)
            about = wire.description_from_proto(answer)
        except grpc.aio.AioRpcError:
            return None
        except ReadaheadError as error:
            log.warning("worker_refused", address=address, cause=error.message)
            return None
        if answer.draining:
            return None
        return WorkerRecord(
            worker_id=about.worker_id,
            incarnation=about.incarnation,
            role=about.role,
            address=address,
        )
