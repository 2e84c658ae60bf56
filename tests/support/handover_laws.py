"""Laws of handovers between two engines, for every transport of KV caches.

A test module imports the laws it wants and has a fixture `pair` of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from vllm_process import wait_until

from readahead.core.cluster import WorkerLoad
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest, Sampling

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

LEASE_S = 6
"""The least that vLLM can do."""


@dataclass(frozen=True, slots=True)
class Pair:
    prefill: VllmEngine
    decode: VllmEngine
    decode_log: Path
    """Of the decode engine's iterations."""


@dataclass(frozen=True, slots=True)
class Answer:
    token_ids: Sequence[int]
    text: str
    end: LegEnd
    outputs: Sequence[LegOutput]


async def answer(engine: VllmEngine, request: LegRequest) -> Answer:
    outputs = [output async for output in engine.run(request)]
    end = outputs[-1].end
    assert end is not None
    assert all(output.end is None for output in outputs[:-1])
    token_ids = [each for output in outputs for each in output.token_ids]
    return Answer(token_ids, "".join(output.text for output in outputs), end, outputs)


def leg(
    name: str, which: Leg, prompt: Sequence[int], sampling: Sampling | None = None
) -> LegRequest:
    return LegRequest(
        key=(RequestId(name), 1),
        leg=which,
        prompt_token_ids=prompt,
        sampling=sampling or Sampling(max_tokens=32, temperature=0.0),
    )


def prompt_of(tokens: int, *, salt: int) -> list[int]:
    """A prompt that shares no block with one of another salt."""
    return [5 + (salt * 131 + index * 17) % 2000 for index in range(tokens)]


async def is_empty(engine: VllmEngine) -> bool:
    state = await engine.inspect()
    free = WorkerLoad(running=0, waiting=0, kv_blocks_free=engine.description.kv_blocks)
    return state.load == free and not state.handovers_held


@pytest.mark.parametrize("tokens", [1, 2, 127, 128, 129, 1500])
async def test_handed_over_output_is_that_of_one_engine(pair: Pair, tokens: int) -> None:
    """Greedy float32 output over two engines equals that of one, in one pull."""
    prompt = prompt_of(tokens, salt=tokens)
    name = f"identity-{tokens}"
    before = await pair.decode.inspect()
    prefilled = await answer(pair.prefill, leg(name, Leg.PREFILL, prompt))
    assert (prefilled.token_ids, prefilled.text) == ([], "")
    held = await pair.prefill.inspect()
    request = replace(leg(name, Leg.DECODE, prompt), handover=prefilled.end.handover)
    decoded = await answer(pair.decode, request)
    after = await pair.decode.inspect()
    whole = await answer(pair.prefill, leg(f"{name}-whole", Leg.WHOLE, prompt))

    assert held.handovers_held == 1
    assert decoded.token_ids == whole.token_ids
    assert decoded.text == whole.text != ""
    assert decoded.end == LegEnd(finish_reason=FinishReason.LENGTH)
    assert after.transfers_total == before.transfers_total + 1
    assert after.transfer_bytes_total > before.transfer_bytes_total
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)
    await wait_until(lambda: is_empty(pair.decode), limit_s=1)


async def test_released_handover_frees_its_blocks(pair: Pair) -> None:
    """Within a second, though the engine has nothing else to do; unknown keys are ignored."""
    request = leg("released", Leg.PREFILL, prompt_of(800, salt=15))
    await answer(pair.prefill, request)
    assert not await is_empty(pair.prefill)
    await pair.prefill.release_handovers([request.key, (RequestId("never-there"), 3)])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)
    assert pair.prefill.load().kv_blocks_free == pair.prefill.description.kv_blocks


async def test_renewed_handover_outlives_its_lease(pair: Pair) -> None:
    """Renewed it is held past the lease and can still be pulled; another one is not."""
    prompt = prompt_of(400, salt=16)
    kept = leg("kept", Leg.PREFILL, prompt)
    dropped = leg("dropped", Leg.PREFILL, prompt_of(200, salt=17))
    unknown = (RequestId("never-there"), 1)
    prefilled = await answer(pair.prefill, kept)
    await answer(pair.prefill, dropped)
    made = monotonic_s()
    renewals = 0

    async def is_past_lease() -> bool:
        nonlocal renewals
        if monotonic_s() - made > renewals * 1.5:
            renewals += 1
            assert await pair.prefill.renew_handovers([kept.key, unknown]) == [unknown]
        return monotonic_s() - made > LEASE_S + 1.5

    await wait_until(is_past_lease, limit_s=LEASE_S + 5)
    assert (await pair.prefill.inspect()).handovers_held == 1
    assert await pair.prefill.renew_handovers([dropped.key]) == [dropped.key]
    request = replace(leg("kept", Leg.DECODE, prompt), handover=prefilled.end.handover)
    decoded = await answer(pair.decode, request)
    whole = await answer(pair.decode, leg("kept-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16])
async def test_cancelled_prefill_frees_everything(pair: Pair, after_s: float) -> None:
    """Whenever the cancel comes: before, in or after the one step that computes the prompt."""
    request = leg(f"cancelled-{after_s}", Leg.PREFILL, prompt_of(1500, salt=int(after_s * 1000)))
    try:
        async with asyncio.timeout(after_s):
            await answer(pair.prefill, request)
    except TimeoutError:
        pass
    else:  # its end was delivered: the handover is the caller's
        await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


async def test_abandoned_pull_frees_both_sides(pair: Pair) -> None:
    """A decode leg cancelled at once leaves nothing on either engine, with the router's release."""
    prompt = prompt_of(1500, salt=19)
    prefilled = await answer(pair.prefill, leg("abandoned", Leg.PREFILL, prompt))
    request = replace(leg("abandoned", Leg.DECODE, prompt), handover=prefilled.end.handover)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(answer(pair.decode, request))
        await asyncio.sleep(0)
        task.cancel()
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=2)
    await wait_until(lambda: is_empty(pair.decode), limit_s=2)
