"""Elastic roles of a live router over emulated engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cluster_in_process import (
    Answer,
    Cluster,
    cluster,
    collect,
    generate_request,
    router_config,
    toy_engine,
    toy_output,
)
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.config import CoreConfig, PlacementConfig
from readahead.core.request import RequestId, Stage, WorkerId

BLOCKED_TIMES = 10_000.0
"""An iteration of the blocked engine takes minutes."""
ROUNDS_MAX = 50


class Callers:
    """Requests under way, which are given up at the end."""

    def __init__(self, running: Cluster) -> None:
        self._running = running
        self._calls: list[Any] = []
        self.answers: list[asyncio.Task[Answer]] = []

    def ask(self, prompt_tokens: int) -> None:
        """Does not wait for the answer."""
        call = self._running.stub.Generate(generate_request([7] * prompt_tokens))
        self._calls.append(call)
        self.answers.append(asyncio.ensure_future(collect(call)))

    @property
    def done(self) -> int:
        """Those that have their answers."""
        return sum(each.done() for each in self.answers)

    async def leave(self) -> None:
        """Cancels whoever still waits."""
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self.answers, return_exceptions=True)


@asynccontextmanager
async def blocked(roles: str) -> AsyncIterator[tuple[Cluster, Callers]]:
    """A prefill worker that never ends a prompt, and a decode worker that is well."""
    engines = {
        "p0": (Role.PREFILL, toy_engine(Role.PREFILL, time_scale=BLOCKED_TIMES)),
        "d0": (Role.DECODE, toy_engine(Role.DECODE, time_scale=0.3)),
    }
    config = router_config(core=CoreConfig(placement=PlacementConfig(roles=roles)))
    async with cluster(engines, config=config) as running:
        callers = Callers(running)
        try:
            yield running, callers
        finally:
            await callers.leave()


def at_prefill(running: Cluster) -> int:
    """Prompts that the blocked worker has."""
    sessions = running.router.driver.sessions.values()
    return sum(session.worker_id == "p0" for session in sessions)


def credits(running: Cluster) -> int:
    return running.router.driver.links[WorkerId("p0")].description.prefill_credits


async def test_prompts_pass_a_blocked_prefill_pool() -> None:
    """Whoever does not sit there already is served by the decode worker."""
    async with blocked("elastic") as (running, callers):
        for _ in range(ROUNDS_MAX):
            if at_prefill(running) == credits(running):
                break
            callers.ask(3000)  # the decode worker is busy for a while
            for _ in range(8):
                callers.ask(200)
            await wait_until(
                lambda: len(callers.answers) - callers.done == at_prefill(running),
            )
        assert at_prefill(running) == credits(running)
        for number in range(3):
            prompt, name = [number] * 200, f"later-{number}"
            answer = await collect(running.stub.Generate(generate_request(prompt, request_id=name)))
            assert (answer.token_ids, answer.text) == toy_output(prompt, 8)
            explanation = running.router.sessions.explain(RequestId(name))
            assert explanation is not None
            chosen = [each.worker_id for each in explanation.decisions if each.costs]
            assert chosen == ["d0"]


async def test_static_pools_wait_for_a_blocked_prefill_pool() -> None:
    """The contrast: nobody is served, and whoever finds no credit waits in the router."""
    async with blocked("static") as (running, callers):
        for _ in range(12):
            callers.ask(200)
        left = 12 - credits(running)
        statistics = running.router.driver.state.statistics
        await wait_until(lambda: statistics().by_stage[Stage.QUEUED] == left)
        assert at_prefill(running) == credits(running)
        assert callers.done == 0
