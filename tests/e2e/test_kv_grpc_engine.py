"""Laws of handovers over gRPC and of parking, on two engines on the CPU.

The decode engine schedules asynchronously, which vLLM's CPU platform would not: on a GPU it does.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from engine_pairs import (
    LEASE_S,
    Answer,
    Pair,
    answer,
    is_empty,
    leg,
    prompt_of,
)
from vllm_process import wait_no_cores, wait_until

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.errors import Reason
from readahead.core.request import FinishReason, Leg
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine import vllm_handover
from readahead.services.engine.engine import LegEnd, LegRequest, Sampling

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(180),
]

KV_BYTES = 20 << 20
"""40 blocks: one request of the longest kind, or twelve of 16 short ones."""
HOST_BYTES = 16 << 20
"""32 blocks."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    """Two engines, and after the tests nothing of them."""
    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(
        model_path=model_path, model_name="tiny", dtype="float32", kv_bytes=KV_BYTES
    )
    kv = KvConfig(backend="grpc", lease_s=LEASE_S, host_bytes=HOST_BYTES)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from readahead.services.engine import vllm, vllm_setup

        is_asynchronous = False

        def parking(*arguments: Any) -> Any:
            settings = vllm_setup.vllm_config(*arguments)
            settings.scheduler_config.async_scheduling = is_asynchronous
            return settings

        patch.setattr(vllm, "vllm_config", parking)
        async with AsyncExitStack() as engines:
            prefill = await vllm.VllmEngine.start(config, kv, Role.PREFILL)
            engines.push_async_callback(prefill.close)
            is_asynchronous = True
            decode = await vllm.VllmEngine.start(config, kv, Role.DECODE)
            engines.push_async_callback(decode.close)
            yield Pair(prefill, decode, Path(os.devnull))
    await wait_no_cores(os.getpid())


ENGINES = pytest.mark.parametrize("which", ["prefill", "decode"], ids=["sync", "async"])


async def call(engine: VllmEngine, name: str, *arguments: object) -> Any:
    return await engine._call(f"readahead_{name}", *arguments)


async def is_clean(engine: VllmEngine) -> bool:
    """Nothing on the device, and nothing on the host."""
    state = await call(engine, "inspect")
    return await is_empty(engine) and not state["host_copies"] and not await call(engine, "parked")


class Stream:
    """A leg that runs while the test does something to it."""

    def __init__(self, engine: VllmEngine, request: LegRequest) -> None:
        self.id = f"{request.key[0]}.{request.key[1]}"
        self.tokens: list[int] = []
        self._news = asyncio.Event()
        self._engine, self._request = engine, request
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> LegEnd:
        end = None
        async for output in self._engine.run(self._request):
            self.tokens.extend(output.token_ids)
            end = output.end
            self._news.set()
        assert end is not None
        return end

    async def reach(self, tokens: int) -> None:
        """Waits for so many tokens, or the end."""
        while len(self.tokens) < tokens and not self.task.done():
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait([news, self.task], return_when=asyncio.FIRST_COMPLETED)
            news.cancel()

    async def park(self) -> str:
        """Returns the reason of a refusal."""
        return str((await call(self._engine, "park", [self.id]))[self.id])

    async def resume(self) -> bool:
        return not await call(self._engine, "resume", [self.id])

    async def settle(self, prompt_tokens: int) -> None:
        """Waits for the tokens that were under way when it was parked."""

        async def has_settled() -> bool:
            parked = await call(self._engine, "parked")
            return int(parked[self.id]["tokens"]) == prompt_tokens + len(self.tokens)

        await wait_until(has_settled, limit_s=5)


def greedy(tokens: int) -> Sampling:
    return Sampling(max_tokens=tokens, temperature=0.0, ignore_eos=True)


@ENGINES
async def test_parked_request_gives_up_its_blocks_and_goes_on(pair: Pair, which: str) -> None:
    """Its blocks serve others meanwhile, and it continues as if nothing had been."""
    engine: VllmEngine = getattr(pair, which)
    prompt = prompt_of(800, salt=41)
    whole = await answer(pair.prefill, leg(f"{which}-ref", Leg.WHOLE, prompt, greedy(40)))
    before = await call(engine, "inspect")
    stream = Stream(engine, leg(f"{which}-parked", Leg.WHOLE, prompt, greedy(40)))
    await stream.reach(10)
    assert await stream.park() == ""
    await wait_until(lambda: is_empty(engine), limit_s=5)
    await stream.settle(len(prompt))
    assert (await call(engine, "inspect"))["host_copies"] == 1
    for salt in (42, 43, 44):  # all of the device's memory
        await answer(engine, leg(f"{which}-{salt}", Leg.WHOLE, prompt_of(4000, salt=salt)))
    assert await stream.resume()
    assert await stream.task == LegEnd(finish_reason=FinishReason.LENGTH)
    after = await call(engine, "inspect")
    assert stream.tokens == whole.token_ids
    assert after["loaded_blocks"] - before["loaded_blocks"] == 7
    await wait_until(lambda: is_clean(engine), limit_s=5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def references(pair: Pair) -> Sequence[Answer]:
    """What 16 streams say, each alone on the engine."""
    return [await answer(pair.prefill, random_leg("alone", index)) for index in range(16)]


def random_leg(name: str, index: int) -> LegRequest:
    prompt = prompt_of(100 + 37 * index, salt=60 + index)
    return leg(f"{name}-{index}", Leg.WHOLE, prompt, greedy(30 + index))


@ENGINES
async def test_random_parks_leave_every_stream_as_it_was(
    pair: Pair, references: Sequence[Answer], which: str
) -> None:
    """16 at once in memory for fewer, each parked and resumed at random moments."""
    engine: VllmEngine = getattr(pair, which)
    draw = random.Random(17)
    before = await call(engine, "inspect")
    parks = 0

    async def run(index: int) -> Stream:
        nonlocal parks
        stream = Stream(engine, random_leg(f"{which}-random", index))
        for _ in range(3):
            await stream.reach(len(stream.tokens) + draw.randrange(1, 9))
            if await stream.park() == "":
                parks += 1
                others = draw.choice(streams) if streams else stream
                if others is not stream:
                    await others.reach(len(others.tokens) + draw.randrange(1, 4))
                await stream.resume()
        return stream

    streams: list[Stream] = []
    for stream in await asyncio.gather(*(run(index) for index in range(16))):
        streams.append(stream)
        await stream.task
    assert [stream.tokens for stream in streams] == [each.token_ids for each in references]
    assert parks >= 24
    assert (await call(engine, "inspect"))["loaded_blocks"] >= before["loaded_blocks"] + parks
    await wait_until(lambda: is_clean(engine), limit_s=5)


@ENGINES
async def test_abort_while_parked_leaves_nothing(pair: Pair, which: str) -> None:
    """Right after the park, once it has settled, and right after the resume."""
    engine: VllmEngine = getattr(pair, which)
    for moment in ("at once", "settled", "resumed"):
        prompt = prompt_of(500, salt=45)
        stream = Stream(engine, leg(f"{which}-{moment}", Leg.WHOLE, prompt, greedy(200)))
        await stream.reach(3)
        assert await stream.park() == ""
        if moment == "settled":
            await stream.settle(len(prompt))
        if moment == "resumed":
            assert await stream.resume()
        stream.task.cancel()
        await asyncio.wait([stream.task])
        await wait_until(lambda: is_clean(engine), limit_s=5)


@ENGINES
async def test_last_token_may_come_after_the_park(pair: Pair, which: str) -> None:
    """Then the request has ended, and the resume finds nothing; the output is whole either way."""
    engine: VllmEngine = getattr(pair, which)
    prompt = prompt_of(60, salt=46)
    whole = await answer(pair.prefill, leg(f"{which}-late-ref", Leg.WHOLE, prompt, greedy(8)))
    for tokens in range(1, 8):
        stream = Stream(engine, leg(f"{which}-late-{tokens}", Leg.WHOLE, prompt, greedy(8)))
        await stream.reach(tokens)
        if await stream.park() == "":
            await stream.resume()
        await stream.task
        assert stream.tokens == whole.token_ids
    await wait_until(lambda: is_clean(engine), limit_s=5)


@ENGINES
async def test_parked_request_goes_on_elsewhere(pair: Pair, which: str) -> None:
    """The other engine pulls the same copy; the first one is told to end it after that."""
    source: VllmEngine = getattr(pair, which)
    target = pair.decode if which == "prefill" else pair.prefill
    prompt = prompt_of(700, salt=47)
    whole = await answer(pair.prefill, leg(f"{which}-there-ref", Leg.WHOLE, prompt, greedy(40)))
    stream = Stream(source, leg(f"{which}-there", Leg.WHOLE, prompt, greedy(40)))
    await stream.reach(12)
    assert await stream.park() == ""
    await stream.settle(len(prompt))
    handover = vllm_handover.encode(await call(source, "offer", stream.id))
    stream.task.cancel()
    await asyncio.wait([stream.task])
    before = await call(target, "inspect")
    left = 40 - len(stream.tokens)
    moved = leg(f"{which}-moved", Leg.DECODE, [*prompt, *stream.tokens], greedy(left))
    rest = await answer(target, replace(moved, handover=handover))
    after = await call(target, "inspect")
    assert [*stream.tokens, *rest.token_ids] == whole.token_ids
    assert after["transfers_total"] == before["transfers_total"] + 1
    await wait_until(lambda: is_clean(source), limit_s=5)
    await wait_until(lambda: is_clean(target), limit_s=5)


async def test_full_host_refuses_a_park_and_costs_a_handover_its_copy(pair: Pair) -> None:
    """The one with a reason, and the other by computing the prompt again: same output."""
    engine = pair.prefill
    prompts = [prompt_of(1400, salt=50 + index) for index in range(3)]
    streams = [
        Stream(engine, leg(f"full-{index}", Leg.WHOLE, prompt, greedy(200)))
        for index, prompt in enumerate(prompts)
    ]
    reasons = []
    for stream in streams:
        await stream.reach(2)
        reasons.append(await stream.park())
    assert reasons == ["", "", Reason.OVERLOADED]
    prompt = prompt_of(1500, salt=54)
    prefilled = await answer(engine, leg("full", Leg.PREFILL, prompt))
    request = replace(leg("full", Leg.DECODE, prompt), handover=prefilled.end.handover)
    decoded = await answer(pair.decode, request)
    for stream in streams:
        stream.task.cancel()
    await asyncio.wait([stream.task for stream in streams])
    whole = await answer(engine, leg("full-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    await wait_until(lambda: is_clean(engine), limit_s=5)


@pytest.mark.parametrize("fault", ["unreachable", "restarted", "released", "other-engine"])
async def test_kv_that_cannot_be_had_is_computed_again(pair: Pair, fault: str) -> None:
    """With the same output, and the reason in the books."""
    prompt = prompt_of(300, salt=55)
    request = leg(f"lost-{fault}", Leg.PREFILL, prompt)
    prefilled = await answer(pair.prefill, request)
    params = json.loads(prefilled.end.handover)
    if fault == "unreachable":
        params["remote_addresses"] = params["remote_streams"] = ["127.0.0.1:9"]
    elif fault == "restarted":
        params["remote_engine_id"] = "another"
    elif fault == "other-engine":
        del params["transport"], params["remote_addresses"]
    await pair.prefill.release_handovers([request.key] * (fault == "released"))
    before = await call(pair.decode, "inspect")
    lost = replace(leg(f"lost-{fault}", Leg.DECODE, prompt), handover=json.dumps(params).encode())
    decoded = await answer(pair.decode, lost)
    after = await call(pair.decode, "inspect")
    await pair.prefill.release_handovers([request.key])
    whole = await answer(pair.prefill, leg(f"lost-{fault}-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    expected = {"unreachable": Reason.WORKER_LOST, "other-engine": None}
    reason = expected.get(fault, Reason.KV_EXPIRED)
    if reason is not None:
        assert after[f"failed_{reason}"] == before.get(f"failed_{reason}", 0) + 1
    await wait_until(lambda: is_clean(pair.prefill), limit_s=5)
    await wait_until(lambda: is_clean(pair.decode), limit_s=5)
