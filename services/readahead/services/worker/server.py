"""A worker around an engine that runs: its gRPC server and what watches over it."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Incarnation, WorkerId
from readahead.runtime.clock import monotonic_s
from readahead.runtime.config import MembershipConfig
from readahead.runtime.rpc.server import HealthBoard, bind, grpc_server
from readahead.runtime.store.connect import connect
from readahead.services.config import WorkerConfig
from readahead.services.engine.engine import Engine
from readahead.services.worker import metrics
from readahead.services.worker.identity import WorkerIdentity
from readahead.services.worker.legs import Legs
from readahead.services.worker.membership import Membership
from readahead.services.worker.servicer import SERVICE, WorkerServicer
from readahead.v1 import worker_service_pb2_grpc as pb_grpc

MESSAGE_BYTES_MAX = 16 << 20
"""A prompt of a million tokens is below 5 MB; so is the largest step."""

WATCH_S = 1.0
"""How often the engine is looked at; a dead one is noticed at once where a leg fails of it."""

INSPECT_S_MAX = 5.0
"""An engine busier than this goes without fresh gauges for a while."""

CLOSE_S_MAX = 1.0
"""Longest wait at the end for streams whose router does not read."""

_log = structlog.get_logger()


class Worker:
    """A running worker. `ended` is set when it should stop, with `failure` if not of its own."""

    def __init__(
        self,
        engine: Engine,
        identity: WorkerIdentity,
        *,
        tasks: asyncio.TaskGroup,
        board: HealthBoard,
    ) -> None:
        self._engine = engine
        self._look = asyncio.Event()
        self.identity = identity
        self.board = board
        self.legs = Legs(engine, identity, tasks=tasks, on_engine_failed=self._look.set)
        self.servicer = WorkerServicer(
            engine, identity, self.legs, on_drain=lambda: board.set_serving(False)
        )
        self.ended = asyncio.Event()
        self.failure: ReadaheadError | None = None
        metrics.KV_TRANSPORT.labels(engine.description.kv_transport or "unknown").set(1)

    def fail(self, error: ReadaheadError) -> None:
        """Says that the worker cannot go on; the first reason stays."""
        self.failure = self.failure or error
        self.ended.set()

    async def drain(self, *, drain_s_max: float) -> None:
        """Refuses new legs and waits for those that run and for handovers that wait to be pulled.

        What is left after `drain_s_max` is cut off by the exit.
        """
        self.servicer.drain()
        if self.failure is not None and self.failure.reason is Reason.ENGINE_FAILED:
            self.legs.fail_all(self.failure)
            return
        started = monotonic_s()
        try:
            async with asyncio.timeout(drain_s_max):
                await self.legs.wait_idle()
                while (await self._engine.inspect()).handovers_held:  # noqa: ASYNC110
                    await asyncio.sleep(WATCH_S / 10)  # no engine tells when one is pulled
        except TimeoutError:
            _log.warning("worker_drain_cut", legs=len(self.legs), drain_s_max=drain_s_max)
        else:
            _log.info("worker_drain_finished", drain_s=round(monotonic_s() - started, 3))

    async def watch(self) -> None:
        """Keeps the gauges fresh; ends when the engine is dead."""
        while await self._engine.is_healthy():
            metrics.observe_load(self._engine.load())
            try:
                async with asyncio.timeout(INSPECT_S_MAX):
                    metrics.observe_state(await self._engine.inspect())
            except TimeoutError:
                _log.warning("engine_slow", inspect_s_max=INSPECT_S_MAX)
            except ReadaheadError as error:  # it died meanwhile
                _log.warning("engine_not_inspected", cause=error.message)
            self._look.clear()
            try:
                async with asyncio.timeout(WATCH_S):
                    await self._look.wait()
            except TimeoutError:
                continue
        _log.error("engine_dead", action="the worker exits; its supervisor restarts it")
        self.fail(ReadaheadError(Reason.ENGINE_FAILED, "the engine is dead"))


@asynccontextmanager
async def running(
    engine: Engine, config: WorkerConfig, *, incarnation: str = ""
) -> AsyncIterator[Worker]:
    """Serves the engine until the block is left; then cuts off what still runs.

    The engine is started before: it may fork, which gRPC does not survive. It is not closed here.
    """
    board = HealthBoard([SERVICE])
    server = grpc_server(
        services=[SERVICE], message_bytes_max=MESSAGE_BYTES_MAX, health_board=board
    )
    port = bind(server, host=config.host, port=config.port, tls=config.tls)
    identity = _identity(config, port=port, incarnation=incarnation)
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(engine, identity, tasks=tasks, board=board)
        pb_grpc.add_WorkerServiceServicer_to_server(worker.servicer, server)
        await server.start()
        async with _in_store(worker, config.membership, tasks=tasks):
            watch = tasks.create_task(worker.watch())
            verdicts = tasks.create_task(worker.legs.watch_verdicts())
            board.set_serving(True)
            try:
                yield worker
            finally:
                board.set_serving(False)
                watch.cancel()
                verdicts.cancel()
                worker.legs.fail_all(ReadaheadError(Reason.WORKER_LOST, "the worker stopped"))
        worker.servicer.close_streams()
        await server.stop(CLOSE_S_MAX)


def _identity(config: WorkerConfig, *, port: int, incarnation: str) -> WorkerIdentity:
    worker_id = config.worker_id or f"{config.role.value}-{socket.gethostname()}-{port}"
    return WorkerIdentity(
        worker_id=WorkerId(worker_id),
        incarnation=Incarnation(incarnation or uuid.uuid4().hex),
        role=config.role,
        address=config.advertised_address or f"{config.host}:{port}",
        prefill_credits=config.prefill_credits,
    )


@asynccontextmanager
async def _in_store(
    worker: Worker, config: MembershipConfig, *, tasks: asyncio.TaskGroup
) -> AsyncIterator[None]:
    """Keeps the worker's record in the store, if there is one."""
    if not config.redis_url:
        yield
        return
    store = connect(config.redis_url)
    membership = Membership(store, worker.identity, lease_s=config.lease_s, on_fenced=worker.fail)
    renewals = tasks.create_task(membership.run())
    try:
        yield
    finally:
        renewals.cancel()
        await membership.withdraw()
        await store.close()
