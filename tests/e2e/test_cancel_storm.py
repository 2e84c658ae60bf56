"""Many streams at once, a third of which vanish: the others do not notice, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass

import aiohttp
import pytest
from up_process import UpProcess
from worker_inspection import wait_all_free, wait_all_joined

from readahead.cli.up.tiny_model import SPECIAL_TOKENS, TinyModel
from readahead.client import AsyncClient, Delta, Finished

pytestmark = pytest.mark.quiet

SEED = 64
STREAMS = 64
VICTIM_TOKENS = 600
"""More than any of them stays for, on whatever machine."""
FREE_S_MAX = 5.0
"""From the last stream's end until nothing of any is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One stream, and when its caller vanishes."""

    door: str
    """"grpc" or "http"."""
    prompt: tuple[int, ...]
    max_tokens: int
    vanishes_after_s: float | None = None
    """Of its start, in whatever stage it is then: waiting, prefill, handover, decode."""
    vanishes_after_frames: int | None = None
    """Of output: the router sends one each 50 ms or so."""

    @property
    def is_victim(self) -> bool:
        return self.vanishes_after_s is not None or self.vanishes_after_frames is not None


@dataclass(slots=True)
class Outcome:
    """What a stream's caller saw."""

    frames: int = 0
    tokens: int | None = None
    """As counted by the server at a good end; None before it."""


def _plans() -> list[Plan]:
    rng = random.Random(SEED)
    vocabulary = range(len(SPECIAL_TOKENS), TinyModel().vocabulary_tokens)
    victims = set(rng.sample(range(STREAMS), STREAMS // 3))
    by_time = set(rng.sample(sorted(victims), len(victims) // 2))
    plans = []
    for index in range(STREAMS):
        max_tokens = VICTIM_TOKENS if index in victims else rng.randint(64, 200)
        plans.append(
            Plan(
                door=("grpc", "http")[index % 2],
                prompt=tuple(rng.choices(vocabulary, k=rng.randint(1, 600))),
                max_tokens=max_tokens,
                vanishes_after_s=rng.uniform(0, 1.2) if index in by_time else None,
                vanishes_after_frames=(rng.randint(1, 12) if index in victims - by_time else None),
            )
        )
    return plans


class Caller:
    """Opens streams by either door; leaving one early closes its call or connection."""

    def __init__(self, cluster: UpProcess) -> None:
        self._cluster = cluster
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Caller:
        self._client = await self._stack.enter_async_context(AsyncClient(self._cluster.grpc))
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self, plan: Plan) -> Outcome:
        """The stream to its end, or to the moment at which its caller vanishes."""
        outcome = Outcome()
        try:
            async with asyncio.timeout(plan.vanishes_after_s):
                await self._read(plan, outcome)
        except TimeoutError:
            assert plan.vanishes_after_s is not None
        return outcome

    async def _read(self, plan: Plan, outcome: Outcome) -> None:
        frames = self._grpc(plan) if plan.door == "grpc" else self._http(plan)
        async with aclosing(frames):
            async for tokens in frames:
                outcome.frames += 1
                outcome.tokens = tokens
                if outcome.frames == plan.vanishes_after_frames:
                    return

    async def _grpc(self, plan: Plan) -> AsyncGenerator[int | None]:
        """One item per frame: None for output, the server's count of tokens for the end."""
        stream = self._client.generate(
            token_ids=plan.prompt, max_tokens=plan.max_tokens, temperature=0, ignore_eos=True
        )
        received = 0
        async with stream:
            async for event in stream:
                if isinstance(event, Delta):
                    received += len(event.token_ids)
                    yield None
                elif isinstance(event, Finished):
                    assert received == event.usage.output_tokens
                    yield event.usage.output_tokens

    async def _http(self, plan: Plan) -> AsyncGenerator[int | None]:
        """As `_grpc`."""
        body = {
            "model": self._cluster.model,
            "prompt": plan.prompt,
            "max_tokens": plan.max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        url = f"http://{self._cluster.http}/v1/completions"
        async with self._session.post(url, json=body) as response:
            try:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        frame = json.loads(line[6:])
                        assert "error" not in frame, frame
                        usage = frame.get("usage")
                        yield usage["completion_tokens"] if usage else None
            finally:
                response.close()  # the connection, not back into the pool


async def test_a_third_of_64_streams_vanishes_and_nothing_is_left(cluster: UpProcess) -> None:
    """The others get all their tokens; within 5 s no engine runs, waits for or holds anything."""
    wait_all_joined(cluster)
    plans = _plans()
    async with Caller(cluster) as caller, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(caller.run(plan)) for plan in plans]
    outcomes = [task.result() for task in running]

    wait_all_free(cluster.workers, FREE_S_MAX)
    for plan, outcome in zip(plans, outcomes, strict=True):
        expected = None if plan.is_victim else plan.max_tokens
        assert outcome.tokens == expected, (plan, outcome)
    assert sum(plan.is_victim for plan in plans) == STREAMS // 3
    assert cluster.complete("The river begins", max_tokens=4)
