"""A worker in the test's own process, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

from readahead.core.cluster import Role
from readahead.runtime.clock import monotonic_s
from readahead.runtime.config import TlsConfig
from readahead.runtime.rpc.channel import channel
from readahead.services.config import WorkerConfig
from readahead.services.engine.engine import Engine
from readahead.services.worker.server import MESSAGE_BYTES_MAX, Worker, running
from readahead.v1 import sampling_pb2, worker_service_pb2, worker_service_pb2_grpc

if TYPE_CHECKING:
    from readahead.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub


@asynccontextmanager
async def running_worker(
    engine: Engine,
    *,
    role: Role = Role.DECODE,
    worker_id: str = "",
    port: int = 0,
    incarnation: str = "",
    tls: TlsConfig = TlsConfig(),  # noqa: B008 - frozen
) -> AsyncIterator[Worker]:
    """Serves the engine over gRPC at `worker.identity.address` until the block is left."""
    config = WorkerConfig(role=role, worker_id=worker_id, port=port, tls=tls)
    async with running(engine, config, incarnation=incarnation) as worker:
        yield worker


@asynccontextmanager
async def worker_stub(address: str) -> AsyncIterator[WorkerServiceAsyncStub]:
    """A client of a worker."""
    async with channel(address, message_bytes_max=MESSAGE_BYTES_MAX) as open_channel:
        stub = worker_service_pb2_grpc.WorkerServiceStub(open_channel)
        # The generated stub is typed for synchronous channels only.
        yield cast("WorkerServiceAsyncStub", stub)


def submit_request(
    request_id: str,
    *,
    leg: worker_service_pb2.Leg.ValueType = worker_service_pb2.LEG_WHOLE,
    attempt: int = 1,
    max_tokens: int = 4,
    prompt_tokens: int = 3,
    router_id: str = "router",
    handover: bytes = b"",
) -> worker_service_pb2.SubmitRequest:
    """A leg with a prompt of ones."""
    return worker_service_pb2.SubmitRequest(
        request_id=request_id,
        attempt=attempt,
        leg=leg,
        prompt_token_ids=[1] * prompt_tokens,
        sampling=sampling_pb2.SamplingParams(max_tokens=max_tokens, temperature=0),
        router_id=router_id,
        handover=handover,
    )


class StepReader:
    """Reads one router's Steps stream and sorts the news by leg."""

    def __init__(self, stub: WorkerServiceAsyncStub, *, router_id: str = "router") -> None:
        self._call = stub.Steps(worker_service_pb2.StepsRequest(router_id=router_id))
        self.messages: list[worker_service_pb2.StepsResponse] = []

    async def open(self) -> StepReader:
        """Waits for the first message, by when the worker takes legs."""
        await self.read()
        return self

    async def read(self, limit_s: float = 10.0) -> worker_service_pb2.StepsResponse | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(limit_s):
            message = await self._call.read()
        if not isinstance(message, worker_service_pb2.StepsResponse):  # grpc.aio.EOF
            return None
        self.messages.append(message)
        return message

    async def read_until(
        self, is_enough: Callable[[StepReader], bool], *, limit_s: float = 10.0
    ) -> None:
        """Reads until the condition holds."""
        async with asyncio.timeout(limit_s):
            while not is_enough(self):
                assert await self.read() is not None, "the stream has ended"

    def deltas(self, request_id: str) -> list[worker_service_pb2.LegDelta]:
        """A leg's news so far."""
        return [d for m in self.messages for d in m.deltas if d.request_id == request_id]

    def token_ids(self, request_id: str) -> list[int]:
        """A leg's tokens so far."""
        return [token for delta in self.deltas(request_id) for token in delta.token_ids]

    def end(self, request_id: str) -> worker_service_pb2.LegEnd | None:
        """How a leg ended, if it did."""
        deltas = self.deltas(request_id)
        return deltas[-1].end if deltas and deltas[-1].HasField("end") else None

    def cancel(self) -> None:
        """Breaks the stream."""
        self._call.cancel()


async def wait_until(condition: Callable[[], bool], *, limit_s: float = 10.0) -> None:
    """Lets the loop run until the condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    ends_at = monotonic_s() + limit_s
    while not condition():
        if monotonic_s() > ends_at:
            raise TimeoutError
        await asyncio.sleep(0.002)
