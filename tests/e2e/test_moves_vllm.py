"""Requests that move between vLLM engines on the CPU: the same text, and nothing left behind.

The second engine schedules asynchronously, which vLLM's CPU platform would not: on a GPU it does.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from cluster_in_process import cluster, router_config
from moving_engines import Home, alone, ask, prompt_of, sampling, started
from restless import RESTLESS
from vllm_process import wait_no_cores, wait_until

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import MigrateLeg
from readahead.core.request import Leg, RequestId
from readahead.router import metrics
from readahead.router.moves import MoveStage
from readahead.services.engine.engine import LegRequest, Sampling
from readahead.v1 import sampling_pb2

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]

STREAMS = 16


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def home() -> AsyncIterator[Home]:
    """Nothing of it lives at the exit."""
    async with AsyncExitStack() as stack:
        engines = {}
        for name, is_asynchronous in (("d0", False), ("d1", True)):
            engines[name] = await started(is_asynchronous=is_asynchronous)
            stack.push_async_callback(engines[name].close)
        roles = {name: (Role.DECODE, engine) for name, engine in engines.items()}
        config = router_config(core=RESTLESS)
        running = await stack.enter_async_context(cluster(roles, config=config))
        yield Home(engines, running)
    await wait_no_cores(os.getpid())


def committed() -> float:
    return float(metrics.MOVES.labels("committed")._value.get())


async def test_streams_that_move_about_say_what_one_engine_says(home: Home) -> None:
    """From an engine that schedules synchronously to one that does not, and back."""
    expected = [await alone(home.engines["d0"], i, sampling(i)) for i in range(STREAMS)]
    before = committed()
    home.send_about(1, chance=0.05)
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(home, "about", i, sampling(i))) for i in range(STREAMS)]
    home.send_about(1, chance=0.0)
    for index, task in enumerate(asked):
        answer = task.result()
        assert answer.error is None, answer.error
        assert (answer.token_ids, answer.text) == expected[index], index
        (finished,) = answer.finished
        assert finished.output_tokens == len(expected[index][0])
        assert finished.reason == sampling_pb2.FINISH_REASON_LENGTH
    assert committed() - before >= 2 * STREAMS
    await wait_until(home.is_clean, limit_s=5)


async def test_stop_strings_and_least_lengths_reach_across_a_move(home: Home) -> None:
    """Each stop string is one that the text has, somewhere a move may be."""
    draw = random.Random(7)
    cases, before = [], committed()
    for index in range(STREAMS):
        _, text = await alone(home.engines["d0"], index, sampling(index))
        begin = draw.randrange(len(text) // 3, len(text) - 16)
        stop = text[begin : begin + draw.randrange(4, 16)]
        how = Sampling(
            max_tokens=sampling(index).max_tokens,
            temperature=0.0,
            ignore_eos=True,
            stop=(stop,),
            min_tokens=draw.choice((0, 40)),
        )
        cases.append((how, await alone(home.engines["d0"], index, how)))
    home.send_about(2, chance=0.15)
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(ask(home, "stop", index, how)) for index, (how, _) in enumerate(cases)
        ]
    home.send_about(2, chance=0.0)
    for (how, expected), task in zip(cases, asked, strict=True):
        answer = task.result()
        assert answer.error is None, answer.error
        assert (answer.token_ids, answer.text) == expected, how
    assert committed() - before >= STREAMS
    await wait_until(home.is_clean, limit_s=5)


@pytest.mark.parametrize(
    "how",
    [
        Sampling(max_tokens=40, temperature=1.0, seed=3, ignore_eos=True),
        Sampling(max_tokens=40, temperature=0.0, presence_penalty=1.0, ignore_eos=True),
    ],
    ids=["seeded", "penalty"],
)
async def test_what_would_be_noticed_does_not_move(home: Home, how: Sampling) -> None:
    """It stays where it is, and says what it says there."""
    expected = await alone(home.engines["d0"], 1, how)
    before, refused = committed(), metrics.MOVES.labels("unsupported")._value.get()
    home.send_about(3, chance=0.3)
    answer = await ask(home, f"stays-{how.seed}", 1, how)
    home.send_about(3, chance=0.0)
    assert (answer.token_ids, answer.text) == expected
    assert committed() == before
    assert metrics.MOVES.labels("unsupported")._value.get() > refused
    await wait_until(home.is_clean, limit_s=5)


@pytest.mark.parametrize("stage", list(MoveStage))
async def test_cancel_at_a_stage_of_a_move_leaves_nothing(home: Home, stage: MoveStage) -> None:
    """On either engine."""
    driver, name = home.running.router.driver, f"cancel-{stage}"
    left: list[MoveStage] = []

    def leave(reached: MoveStage, command: MigrateLeg) -> None:
        if reached is stage and not left:
            left.append(reached)
            home.running.router.sessions.cancel(command.request_id)

    driver.moves.on_stage = leave
    home.send_about(4, chance=0.3)
    try:
        answer = await ask(home, name, 12, Sampling(max_tokens=400, ignore_eos=True))
    finally:
        driver.moves.on_stage = lambda *_: None
        home.send_about(4, chance=0.0)
    assert left
    assert answer.error is not None
    await wait_until(home.is_clean, limit_s=5)


async def test_nixl_says_that_it_does_not_move(home: Home) -> None:
    """An engine whose KV transport cannot do it has the reason for it."""
    engine = home.engines["d0"]
    request = LegRequest(
        key=(RequestId("nixl"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=prompt_of(0),
        sampling=sampling(0),
    )
    outputs = engine.run(request)
    await anext(outputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_description", _immovable(engine))
        with pytest.raises(ReadaheadError) as error:
            await engine.offer_leg(request.key)
    assert error.value.reason is Reason.UNSUPPORTED
    await outputs.aclose()  # type: ignore[attr-defined]  # a generator, as the protocol promises
    await wait_until(home.is_clean, limit_s=5)


def _immovable(engine: VllmEngine) -> Any:
    from dataclasses import replace

    return replace(engine.description, moves_legs=False)
