"""The worker process, from its settings to its exit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from readahead.core.cluster import Role
from readahead.runtime import logs
from readahead.runtime.shutdown import stop_signal
from readahead.runtime.telemetry import attributes, exposition, traces
from readahead.services.config import WorkerConfig
from readahead.services.engine.engine import Engine
from readahead.services.worker.server import Worker, running

_SERVICE_NAMES = {
    Role.PREFILL: attributes.SERVICE_PREFILL,
    Role.DECODE: attributes.SERVICE_DECODE,
}

_log = structlog.get_logger()


async def serve(config: WorkerConfig, *, ready: Callable[[str], None] | None = None) -> None:
    """Runs a worker until SIGTERM or SIGINT, then drains it.

    Args:
        config: all its settings.
        ready: called once with the address under which routers reach it.

    Raises:
        ReadaheadError: ENGINE_FAILED or STALE_INCARNATION; the worker could not go on. The
            process is to exit with an error, so that its supervisor starts a new one.
    """
    logs.configure(config.telemetry, process=config.role.value)
    engine = await _start_engine(config)
    logs.configure(config.telemetry, process=config.role.value)  # vLLM brought its own handlers
    try:
        # From here on threads, sockets and signal handlers exist: nothing forks any more.
        async with stop_signal() as stop, running(engine, config) as worker:
            _start_telemetry(config, worker)
            _log.info(
                "worker_started",
                worker_id=worker.identity.worker_id,
                incarnation=worker.identity.incarnation,
                address=worker.identity.address,
                engine=engine.description.engine,
                kv_transport=engine.description.kv_transport,
                model=engine.description.model,
                kv_blocks=engine.description.kv_blocks,
            )
            if ready is not None:
                ready(worker.identity.address)
            await _wait_either(stop, worker.ended)
            await worker.drain(drain_s_max=config.drain_s_max)
    finally:
        exposition.stop()
        await asyncio.to_thread(traces.shutdown)
        await engine.close()
    _log.info("worker_stopped", worker_id=worker.identity.worker_id)
    if worker.failure is not None:
        raise worker.failure


async def _start_engine(config: WorkerConfig) -> Engine:
    if config.engine.kind == "emulated":
        from readahead.services.engine.emulated import EmulatedEngine

        return await EmulatedEngine.start(config.engine, config.kv, config.role)
    from readahead.services.engine.vllm import VllmEngine  # seconds of imports

    return await VllmEngine.start(config.engine, config.kv.secured(config.tls), config.role)


def _start_telemetry(config: WorkerConfig, worker: Worker) -> None:
    traces.configure(
        config.telemetry,
        service_name=_SERVICE_NAMES[config.role],
        instance_id=worker.identity.worker_id,
    )
    exposition.start(config.telemetry, is_healthy=lambda: worker.board.is_serving)


async def _wait_either(first: asyncio.Event, second: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as waits:
        tasks = [waits.create_task(event.wait()) for event in (first, second)]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
