"""A promise in a real vLLM engine: its own planner decides, and says so."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

import pytest
from engine_pairs import leg, prompt_of
from vllm_process import wait_no_cores

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.promise import Promise, PromisedStage, Verdict
from readahead.core.request import Leg
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import Engine, LegKey, LegRequest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(180),
]


def promised(name: str, first_token_s: float, verdict: Verdict = Verdict.NEW) -> LegRequest:
    """The same text for all; the answer's stage begins with its third token."""
    stages = (PromisedStage(token_s=0.2, tokens=2), PromisedStage(token_s=0.4))
    return replace(
        leg(name, Leg.WHOLE, prompt_of(40, salt=3)),
        arrived_at=monotonic_s(),
        promise=Promise(first_token_s=first_token_s, stages=stages),
        verdict=verdict,
    )


async def told(engine: Engine, request: LegRequest) -> tuple[list[int], list[Verdict]]:
    """A leg's tokens, and what was decided about it while it ran."""
    token_ids: list[int] = []
    found: list[tuple[LegKey, Verdict]] = []
    async for output in engine.run(request):
        token_ids.extend(output.token_ids)
        found.extend(engine.take_verdicts())
    assert {key for key, _ in found} <= {request.key}
    return token_ids, [verdict for _, verdict in found]


async def test_the_planner_in_the_engine_core_decides_and_says_so() -> None:
    """By the promise of each leg alone: their readers all have plenty of time."""
    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(
        model_path=model_path,
        model_name="tiny",
        dtype="float32",
        policy="slos-serve",
        latency_profile="tiny-cpu",
        planner_budget_s=1.0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine.vllm import VllmEngine

        engine = await VllmEngine.start(config, KvConfig(), Role.DECODE)
        try:
            assert engine.description.zero_load is not None
            easy = await told(engine, promised("easy", 60.0))
            late = await told(engine, promised("late", 1e-6))
            known = await told(engine, promised("known", 1e-6, Verdict.BEST_EFFORT))
        finally:
            await engine.close()
    await wait_no_cores(os.getpid())
    assert (easy[1], late[1], known[1]) == ([Verdict.ACCEPTED], [Verdict.BEST_EFFORT], [])
    assert easy[0] == late[0] == known[0]
