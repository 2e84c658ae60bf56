"""Greedy text is that of one plain engine where a router moves requests between workers whose
engines speculate, and whose plans park."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from cluster_in_process import Answer, cluster, collect, generate_request, router_config
from moving_engines import PROMPT_IDS_MAX, Home, started
from parking_scenarios import PLANNED
from reference_engine import reference_answers
from restless import RESTLESS
from vllm_process import wait_no_cores, wait_until

from readahead.cli.up.tiny_model import TinyModel, ensure
from readahead.core.cluster import Role
from readahead.router import metrics
from readahead.services.config import SpeculationConfig

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]

REQUESTS = 52
AT_ONCE = 40
TOKENS = 60
KV_BYTES = 18 << 20
"""36 blocks of 128 tokens, little more than one request can have."""


def prompt_of(index: int) -> list[int]:
    """One that says things more than once, so that some drafts are right."""
    draw = random.Random(500 + index)
    phrase = [draw.randrange(5, PROMPT_IDS_MAX) for _ in range(draw.randrange(20, 80))]
    return [*phrase, *phrase, *phrase, *range(7, 7 + draw.randrange(150))]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home() -> AsyncIterator[Home]:
    """Nothing of it lives at the exit."""
    async with AsyncExitStack() as stack:
        engines = {}
        for name in ("d0", "d1"):
            engines[name] = await started(
                is_asynchronous=False,  # it would be off anyway with n-grams
                kv_bytes=KV_BYTES,
                speculation=SpeculationConfig(method="ngram"),
                latency_profile="tiny-cpu",
                planner_budget_s=1.0,
            )
            stack.push_async_callback(engines[name].close)
        roles = {name: (Role.DECODE, engine) for name, engine in engines.items()}
        config = router_config(core=RESTLESS)
        running = await stack.enter_async_context(cluster(roles, config=config))
        yield Home(engines, running)
    await wait_no_cores(os.getpid())


async def counted(home: Home) -> dict[str, int]:
    """By the router and by both engines since the start."""
    found = {"migrations": int(metrics.MOVES.labels("committed")._value.get())}
    for engine in home.engines.values():
        for call in ("readahead_moves", "readahead_drafts", "readahead_inspect"):
            for name, count in (await engine._call(call)).items():
                found[name] = found.get(name, 0) + count
    return found


async def test_text_is_the_same_through_router_plans_and_drafts(home: Home, tmp_path: Path) -> None:
    """52 requests, most of them at a time; policies and chunks change in between."""
    model, draw = ensure(TinyModel(), os.environ), random.Random(6)
    prompts = [prompt_of(index) for index in range(REQUESTS)]
    alone = await asyncio.to_thread(
        reference_answers, model, prompts, max_tokens=TOKENS, folder=tmp_path
    )
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(index: int) -> Answer:
        async with room:
            engine = home.engines[draw.choice(("d0", "d1"))]
            cap_tokens = draw.choice((16, 64, 1024))
            await engine.select_policy("readahead", {**PLANNED, "cap_tokens": cap_tokens})
            request = generate_request(prompts[index], request_id=f"q{index}", max_tokens=TOKENS)
            request.sampling.ignore_eos = True
            return await collect(home.running.stub.Generate(request))

    before = await counted(home)
    home.send_about(8, chance=0.3)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(index)) for index in range(REQUESTS)]
    home.send_about(8, chance=0.0)
    for index, task in enumerate(asked):
        answer = task.result()
        assert answer.error is None, answer.error
        assert answer.token_ids == alone[index], index
    await wait_until(home.is_clean, limit_s=5)
    happened = {name: count - before.get(name, 0) for name, count in (await counted(home)).items()}
    print(happened)
    assert happened["migrations"] >= 5
    assert happened["parks"] >= 5
    assert happened["resumes"] >= 5
    assert happened["accepted"] >= 20
    assert happened["failures"] == 0
    plans = [(await engine.inspect()).plan for engine in home.engines.values()]
    assert sum(plan.parks for plan in plans if plan) == happened["parks"]
    assert [plan.parked for plan in plans if plan] == [0, 0]
