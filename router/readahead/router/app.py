"""One router process: what is nested in what, from the store to the doors."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import cast

import structlog

from readahead.core.router_state import RouterState
from readahead.router import live_signal, metrics
from readahead.router.config import RouterConfig
from readahead.router.doors import Doors, listen
from readahead.router.driver import Driver
from readahead.router.membership import LinkLimits, Membership
from readahead.router.prompts import Prompts
from readahead.router.registrar import StaticRegistrar
from readahead.router.relay import Relay
from readahead.router.session_table import SessionTable
from readahead.runtime import logs
from readahead.runtime.clock import monotonic_s
from readahead.runtime.rpc.server import HealthBoard
from readahead.runtime.shutdown import stop_signal
from readahead.runtime.store.connect import connect
from readahead.runtime.store.store import Store
from readahead.runtime.telemetry import attributes, traces

_LINK_BYTES_MAX = 64 << 20
"""Largest message from or to a worker: a prompt of millions of tokens, or a step's whole text."""
_LOOK_S = 0.25
"""How often gauges, health and loop lag are looked at; four looks per second cost nothing."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """A running router."""

    driver: Driver
    sessions: SessionTable
    grpc_address: str
    http_address: str
    """Empty iff there is no HTTP door."""


async def serve(config: RouterConfig, *, ready: Callable[[Router], None] | None = None) -> None:
    """Runs a router until SIGTERM or SIGINT, then drains.

    Args:
        config: its settings.
        ready: told once the doors listen; workers may still be joining.

    Raises:
        OSError: a port cannot be had.
        ValueError: the model's folder is of no use.
        RuntimeError: the core failed; the log has the events.
    """
    logs.configure(config.telemetry, process="router")
    traces.configure(
        config.telemetry,
        service_name=attributes.SERVICE_ROUTER,
        instance_id=f"router-{uuid.uuid4().hex[:8]}",
    )
    try:
        async with stop_signal() as stop, running(config) as router:
            gc.freeze()  # what is loaded by now stays; looking at it again costs 4 % of the time
            log.info("router_started", grpc=router.grpc_address, http=router.http_address)
            if ready is not None:
                ready(router)
            async with asyncio.TaskGroup() as tasks:
                watcher = tasks.create_task(_stop_when_broken(router.driver, stop))
                await stop.wait()
                watcher.cancel()
            await _drain(router, config.drain_s_max)
    finally:
        await asyncio.to_thread(traces.shutdown)
    if router.driver.broken.is_set():
        raise RuntimeError("the router's core failed; see event_ring_dumped in the log")
    log.info("router_stopped")


@asynccontextmanager
async def running(
    config: RouterConfig, *, prompts: Prompts | None = None, store: Store | None = None
) -> AsyncIterator[Router]:
    """A router with its doors open. At the exit what still runs is told so and ended.

    Args:
        config: its settings.
        prompts: of the model, where they are loaded already.
        store: another than the one that the settings name.
    """
    # Before any task group, so that a port that is taken raises as itself.
    doors = await listen(config.doors)
    error: ValueError | None = None
    async with doors.answering():
        try:
            if prompts is None:
                prompts = await asyncio.to_thread(Prompts.load, config.model)
        except ValueError as unusable:
            error = unusable
        else:
            store = store or connect(config.membership.redis_url)
            async with _routing(config, doors, prompts, store) as router:
                yield router
    if error is not None:  # raised here, since the group above would wrap it
        raise error


@asynccontextmanager
async def _routing(
    config: RouterConfig, doors: Doors, prompts: Prompts, store: Store
) -> AsyncIterator[Router]:
    driver = Driver(RouterState(config.core))
    sessions = SessionTable(
        driver,
        core=config.core,
        model=prompts.name,
        context_tokens_max=prompts.context_tokens_max,
        doors=config.doors,
    )
    membership = _membership(config, store, driver, model=prompts.name)
    registrar = StaticRegistrar(store=store, config=config.membership, tls=config.worker_tls)
    try:
        async with driver, asyncio.TaskGroup() as tasks:
            keepers = [
                tasks.create_task(membership.run()),
                tasks.create_task(registrar.run()),
                tasks.create_task(_look(driver, sessions, doors.board)),
            ]
            async with doors.serving(sessions, prompts):
                try:
                    yield Router(
                        driver=driver,
                        sessions=sessions,
                        grpc_address=doors.grpc_address,
                        http_address=doors.http_address,
                    )
                finally:
                    sessions.drain()
                    driver.abandon("the router has stopped")
            for keeper in keepers:
                keeper.cancel()
    finally:
        sessions.close()
        prompts.close()
        await store.close()


def _membership(config: RouterConfig, store: Store, driver: Driver, *, model: str) -> Membership:
    return Membership(
        store=store,
        driver=driver,
        on_step=Relay(driver).on_step,
        model=model,
        poll_s=config.membership.poll_s,
        limits=LinkLimits(
            silence_s_max=config.worker_silence_s_max,
            message_bytes_max=_LINK_BYTES_MAX,
            tls=config.worker_tls,
        ),
    )


async def _look(driver: Driver, sessions: SessionTable, board: HealthBoard) -> None:
    """Keeps gauges and health up to date, and measures how late the loop is."""
    sample_at = monotonic_s()
    while True:
        due = monotonic_s() + _LOOK_S
        await asyncio.sleep(_LOOK_S)
        metrics.LOOP_LAG.observe(max(0.0, monotonic_s() - due))
        metrics.observe_statistics(driver.state.statistics())
        if due >= sample_at:
            sample_at = due + live_signal.SAMPLE_S
            readers = [session.reader for session in driver.sessions.values()]
            await live_signal.sample(readers, now=monotonic_s)
        is_serving = bool(sessions.models())
        if is_serving != board.is_serving:
            board.set_serving(is_serving)
            log.info("router_serving" if is_serving else "router_waiting_for_workers")


async def _stop_when_broken(driver: Driver, stop: asyncio.Event) -> None:
    await driver.broken.wait()
    stop.set()


async def _drain(router: Router, limit_s: float) -> None:
    """Admits nothing more and waits for what runs, within the limit."""
    router.sessions.drain()
    log.info("router_draining", requests=len(router.driver.sessions), limit_s=limit_s)
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await router.driver.wait_idle()


def loop_factory() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it is installed, else asyncio's own; for `asyncio.Runner`."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())  # untyped where it is missing
