"""What every Engine keeps to; the fake passes it so that tests may trust the fake."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import replace
from typing import cast

import pytest
from fake_engine import FakeEngine
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.engine import Engine, LegEnd, LegOutput, LegRequest, Sampling

PROMPT = tuple(range(1, 50))

Start = Callable[[], AsyncIterator[Engine]]


async def emulated() -> AsyncIterator[Engine]:
    latency = replace(LLAMA_3_1_8B_A100_80G, time_scale=0.01)
    engine = EmulatedEngine(EmulatedProfile(model="m", latency=latency), role=Role.PREFILL)
    await engine.open()
    yield engine
    engine.check()
    await engine.close()


async def fake() -> AsyncIterator[Engine]:
    engine = FakeEngine()
    yield engine
    await engine.close()


@pytest.fixture(params=[emulated, fake], ids=["emulated", "fake"])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async for made in request.param():
        yield made


def leg(
    name: str, kind: Leg = Leg.WHOLE, *, max_tokens: int = 5, handover: bytes = b""
) -> LegRequest:
    return LegRequest(
        key=(RequestId(name), 1),
        leg=kind,
        prompt_token_ids=PROMPT,
        sampling=Sampling(max_tokens=max_tokens),
        handover=handover,
    )


async def test_a_leg_ends_once_with_all_its_tokens(engine: Engine) -> None:
    """max_tokens tokens, one end on the last news, timings with the first token."""
    outputs = [output async for output in engine.run(leg("a"))]
    assert sum(len(output.token_ids) for output in outputs) == 5
    assert [output.end is not None for output in outputs].count(True) == 1
    assert outputs[-1].end == LegEnd(finish_reason=FinishReason.LENGTH)
    assert outputs[0].wait_s is not None
    assert outputs[0].first_token_s is not None
    assert engine.load().running == 0


async def test_a_prefill_leg_holds_its_kv(engine: Engine) -> None:
    """The handover is held until it is released; unknown ones are named."""
    (output,) = [output async for output in engine.run(leg("a", Leg.PREFILL))]
    assert output.end is not None
    assert output.end.handover
    assert not output.token_ids
    known, unknown = (RequestId("a"), 1), (RequestId("b"), 1)
    assert list(await engine.renew_handovers([known, unknown])) == [unknown]
    assert (await engine.inspect()).handovers_held == 1
    await engine.release_handovers([known, unknown])
    assert (await engine.inspect()).handovers_held == 0


async def test_closing_early_aborts(engine: Engine) -> None:
    """A leg whose news is not taken to its end leaves nothing in the engine."""
    free = engine.load().kv_blocks_free
    outputs = cast("AsyncGenerator[LegOutput, None]", engine.run(leg("a", max_tokens=4000)))
    await anext(outputs)
    assert engine.load().running == 1
    await outputs.aclose()
    await wait_until(lambda: engine.load().running == 0)
    assert engine.load().kv_blocks_free == free


async def test_a_prompt_that_fills_the_context_is_refused(engine: Engine) -> None:
    """CONTEXT_TOO_LONG, and nothing stays behind."""
    context_tokens_max = engine.description.context_tokens_max
    request = replace(leg("a"), prompt_token_ids=[1] * context_tokens_max)
    with pytest.raises(ReadaheadError) as caught:
        [output async for output in engine.run(request)]
    assert caught.value.reason is Reason.CONTEXT_TOO_LONG
    assert engine.load().running == 0


async def test_a_closed_engine_refuses(engine: Engine) -> None:
    """After close the engine is not healthy, and legs fail as ENGINE_FAILED."""
    assert await engine.is_healthy()
    await engine.close()
    assert not await engine.is_healthy()
    with pytest.raises(ReadaheadError) as caught:
        [output async for output in engine.run(leg("a"))]
    assert caught.value.reason is Reason.ENGINE_FAILED
