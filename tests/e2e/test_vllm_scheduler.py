"""Laws of `ReadaheadScheduler` inside real engines, asynchronous scheduling off and on."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import scheduler_scenarios as scenarios
from stepped_engine import RemoteEngine, prompts_of, stepped_engine

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegRequest, ReaderUpdate, Sampling
from readahead.services.engine.vllm_scheduler_names import POLICY_NAMES

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
]

PROMPTS = prompts_of(24, seed=1, most=300)
TOKENS = 24


@dataclass(frozen=True, slots=True)
class Stepped:
    engine: RemoteEngine
    solo: list[list[int]]
    """What each of PROMPTS brings alone."""


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def stepped(request: pytest.FixtureRequest) -> Iterator[Stepped]:
    with stepped_engine(is_async=request.param) as engine:
        yield Stepped(engine, engine.do(scenarios.solo, PROMPTS, TOKENS))


@pytest.mark.parametrize("policy", POLICY_NAMES)
def test_text_is_the_same_under_each_policy(stepped: Stepped, policy: str) -> None:
    """24 greedy requests in float32 beside one another equal the solo runs; nothing is left."""
    answers, counts, left = stepped.engine.do(
        scenarios.together, PROMPTS, tokens=TOKENS, policies=[policy], seed=7
    )
    assert answers == dict(enumerate(stepped.solo))
    assert left == (0, 0, 0)
    assert counts["failures"] == 0
    assert (counts["planned"] > 0) == (policy != "vllm")


@pytest.mark.parametrize("seed", range(3))
def test_text_is_the_same_whatever_is_asked_for(stepped: Stepped, seed: int) -> None:
    """Random batches, chunks, holds, preemptions, aborts and changes of policy, in scarce KV."""
    answers, counts, left = stepped.engine.do(
        scenarios.together,
        PROMPTS,
        tokens=TOKENS,
        policies=[*["wild"] * len(POLICY_NAMES), *POLICY_NAMES],
        seed=seed,
        aborts=3,
    )
    assert len(answers) >= len(PROMPTS) - 3
    assert answers == {index: stepped.solo[index] for index in answers}
    assert left == (0, 0, 0)
    assert counts["failures"] == 0
    assert counts["held_requests"] > 0
    assert counts["preemptions"] > 0


def test_prompt_comes_sooner_while_rich_readers_sit_out(stepped: Stepped) -> None:
    """480 tokens, 48 an iteration: beside 24 who decode 20 iterations, alone 10."""
    stock, _ = stepped.engine.do(scenarios.first_token, "vllm")
    ours, counts = stepped.engine.do(scenarios.first_token, "readahead")
    assert stock >= 20
    assert ours <= 12
    assert counts["held_requests"] >= 24 * 9


def test_failing_planner_gives_way_to_the_stock_schedule(stepped: Stepped) -> None:
    """Each failure is counted, its text is kept, and everybody is served."""
    answers, counts, raised, error = stepped.engine.do(scenarios.broken, PROMPTS, TOKENS)
    assert answers == dict(enumerate(stepped.solo))
    assert counts["failures"] == raised > 0
    assert "a test said so" in error


def test_slow_planner_gives_way_to_the_stock_schedule(stepped: Stepped) -> None:
    """Beyond its budget a plan is dropped and counted, and everybody is served."""
    answers, counts = stepped.engine.do(scenarios.overrun, PROMPTS, TOKENS)
    assert answers == dict(enumerate(stepped.solo))
    assert counts["overruns"] == counts["iterations"] > 0
    assert counts["planned"] == 0


def test_policy_changes_only_where_there_is_one(stepped: Stepped) -> None:
    """The utility call says what is wrong, and then nothing has changed."""
    good, bad, bad_knob = stepped.engine.do(scenarios.refused)
    assert good == ""
    assert bad.startswith("policy must be one of vllm, ")
    assert bad_knob.startswith("nonsense is no knob of sarathi")


def test_news_of_a_reader_reach_the_plan(stepped: Stepped) -> None:
    """By shared memory, in the next plan: what he has left is read four times as fast."""
    before, after, policy, _ = stepped.engine.do(scenarios.heard)
    assert before[0] == 2.0
    assert after[0] == 8.0
    assert 0 < after[1] < before[1] / 2
    assert policy == "readahead"


async def test_worker_engine_plans_and_says_so() -> None:
    """Policy at the start and at run time, readers' news and the report, through `VllmEngine`."""
    model = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(model_path=model, dtype="float32", policy="readahead")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine.vllm import VllmEngine

        engine = await VllmEngine.start(config, KvConfig(), Role.DECODE)
    try:
        plain = await _texts(engine, "plain")
        state = await engine.inspect()
        assert state.plan is not None
        assert state.plan.policy == "readahead"
        assert state.plan.planned > 0
        with pytest.raises(ReadaheadError, match="nonsense") as caught:
            await engine.select_policy("nonsense", {})
        assert caught.value.reason is Reason.INVALID_REQUEST
        await engine.select_policy("sarathi", {"chunk_tokens": 32})
        assert await _texts(engine, "chunked") == plain
        state = await engine.inspect()
        assert state.plan is not None
        assert (state.plan.policy, state.plan.failures) == ("sarathi", 0)
        assert await _parked(engine) == {"refused.1": Reason.UNSUPPORTED}
    finally:
        await engine.close()


async def _parked(engine: VllmEngine) -> dict[str, str]:
    """What is said to a park where NIXL moves KV; the leg runs on."""
    request = LegRequest(
        key=(RequestId("refused"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=PROMPTS[0],
        sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
    )
    said: dict[str, str] = {}
    tokens = 0
    async for output in engine.run(request):
        tokens += len(output.token_ids)
        said = said or await engine._call("readahead_park", ["refused.1"])
    assert tokens == TOKENS
    assert await engine._call("readahead_parked") == {}
    return said


async def _texts(engine: VllmEngine, name: str) -> list[list[int]]:
    """Of four legs at a time, each with a reader who is heard of after its first token."""

    async def one(index: int) -> list[int]:
        key = (RequestId(f"{name}-{index}"), 1)
        request = LegRequest(
            key=key,
            leg=Leg.WHOLE,
            prompt_token_ids=PROMPTS[index],
            sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
            pace_tok_s=3.0,
            arrived_at=monotonic_s() - 1,
        )
        ids: list[int] = []
        async for output in engine.run(request):
            ids += output.token_ids
            engine.update_readers(
                [ReaderUpdate(key=key, at=monotonic_s(), pace_tok_s=6.0, tokens_read=1)]
            )
        return ids

    return await asyncio.gather(*(one(index) for index in range(4)))
