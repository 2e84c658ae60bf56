"""Laws of `VllmEngine`, on one prefill and one decode engine on the CPU."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from vllm_process import engine_cores, wait_until

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role, WorkerLoad
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest, Sampling

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(180),
]

LEASE_S = 6
"""The least that vLLM can do."""


@dataclass(frozen=True, slots=True)
class Pair:
    prefill: VllmEngine
    decode: VllmEngine
    decode_log: Path
    """Of the decode engine's iterations."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    """Two engines, and after the tests nothing of them."""
    log = tmp_path_factory.mktemp("logs") / "decode.iterations.jsonl"
    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(model_path=model_path, model_name="tiny", dtype="float32")
    kv = KvConfig(lease_s=LEASE_S)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine.vllm import VllmEngine

        async with AsyncExitStack() as engines:
            prefill = await VllmEngine.start(config, kv, Role.PREFILL)
            engines.push_async_callback(prefill.close)
            logged = replace(config, iteration_log=str(log))
            decode = await VllmEngine.start(logged, kv, Role.DECODE)
            engines.push_async_callback(decode.close)
            yield Pair(prefill, decode, log)
    assert not engine_cores(os.getpid())


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
    """Greedy float32 output through prefill, NIXL and decode equals one engine's, in one pull."""
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


async def test_timings_come_with_the_first_token_only(pair: Pair) -> None:
    """The wait includes the pull, and nothing is told twice."""
    prompt = prompt_of(300, salt=11)
    prefilled = await answer(pair.prefill, leg("timings", Leg.PREFILL, prompt))
    request = replace(leg("timings", Leg.DECODE, prompt), handover=prefilled.end.handover)
    decoded = await answer(pair.decode, request)
    for outputs in (prefilled.outputs, decoded.outputs):
        assert [output.wait_s is not None for output in outputs].index(True) == 0
        assert sum(output.wait_s is not None for output in outputs) == 1
        assert outputs[0].wait_s is not None
        assert outputs[0].first_token_s is not None
        assert 0 <= outputs[0].wait_s < 10
        assert 0 < outputs[0].first_token_s < 10


async def test_decode_engine_runs_whole_requests_too(pair: Pair) -> None:
    """A consumer of KV caches also computes prompts, with the same output."""
    prompt = prompt_of(40, salt=12)
    there = await answer(pair.decode, leg("whole-d", Leg.WHOLE, prompt))
    here = await answer(pair.prefill, leg("whole-p", Leg.WHOLE, prompt))
    assert there.token_ids == here.token_ids


async def test_iteration_log_has_each_token_once(pair: Pair) -> None:
    """A prompt of P tokens and N of output: P + N - 1 are computed, each over all before it."""
    prompt, output = prompt_of(70, salt=13), 9
    logged = len(pair.decode_log.read_text().splitlines())
    sampling = Sampling(max_tokens=output, temperature=0.0, ignore_eos=True)
    await answer(pair.decode, leg("logged", Leg.WHOLE, prompt, sampling))
    await wait_until(lambda: is_empty(pair.decode), limit_s=1)
    lines = list(map(json.loads, pair.decode_log.read_text().splitlines()[logged:]))
    assert [line["tokens"] for line in lines] == [len(prompt), *[1] * (output - 1)]
    assert [line["requests"] for line in lines] == [1] * output
    assert sum(line["prefill_pairs"] for line in lines) == len(prompt) * (len(prompt) + 1) // 2
    assert [line["past_tokens"] for line in lines] == [
        0,
        *range(len(prompt), len(prompt) + output - 1),
    ]
    assert all(0 < line["seconds"] < 10 for line in lines)


async def test_stop_string_ends_the_output_before_itself(pair: Pair) -> None:
    """The text up to the stop string is delivered and nothing of it."""
    prompt = prompt_of(40, salt=13)
    free = await answer(pair.decode, leg("stop-free", Leg.WHOLE, prompt))
    stop = free.text[len(free.text) // 2 :][:4]
    sampling = Sampling(max_tokens=32, temperature=0.0, stop=(stop,))
    stopped = await answer(pair.decode, leg("stop", Leg.WHOLE, prompt, sampling))
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.end == LegEnd(finish_reason=FinishReason.STOP)


async def test_seed_makes_sampled_output_repeat(pair: Pair) -> None:
    """The same seed draws the same tokens; another draws others."""
    prompt = prompt_of(40, salt=14)

    async def drawn(name: str, seed: int) -> Sequence[int]:
        sampling = Sampling(max_tokens=32, temperature=2.0, seed=seed, ignore_eos=True)
        return (await answer(pair.decode, leg(name, Leg.WHOLE, prompt, sampling))).token_ids

    first = await drawn("seed-a", 1)
    assert first == await drawn("seed-b", 1)
    assert first != await drawn("seed-c", 2)


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


async def test_closing_the_iterator_frees_everything(pair: Pair) -> None:
    """After the first news of a long answer, nothing is left in the engine."""
    sampling = Sampling(max_tokens=2000, ignore_eos=True)
    outputs = pair.prefill.run(leg("closed", Leg.WHOLE, prompt_of(1500, salt=18), sampling))
    await anext(outputs)
    assert not await is_empty(pair.prefill)
    await outputs.aclose()  # type: ignore[attr-defined]  # an async generator
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


BAD: Sequence[tuple[str, LegRequest, Reason]] = (
    ("empty", leg("bad", Leg.WHOLE, []), Reason.INVALID_REQUEST),
    ("beyond-vocabulary", leg("bad", Leg.WHOLE, [5, 2048]), Reason.INVALID_REQUEST),
    ("negative-id", leg("bad", Leg.WHOLE, [-1]), Reason.INVALID_REQUEST),
    ("too-long", leg("bad", Leg.WHOLE, [7] * 4096), Reason.CONTEXT_TOO_LONG),
    ("no-tokens", leg("bad", Leg.WHOLE, [7], Sampling(max_tokens=0)), Reason.INVALID_REQUEST),
    (
        "temperature",
        leg("bad", Leg.WHOLE, [7], Sampling(max_tokens=1, temperature=-1)),
        Reason.INVALID_REQUEST,
    ),
    (
        "top-p",
        leg("bad", Leg.WHOLE, [7], Sampling(max_tokens=1, top_p=1.5)),
        Reason.INVALID_REQUEST,
    ),
    (
        "empty-stop",
        leg("bad", Leg.WHOLE, [7], Sampling(max_tokens=1, stop=("",))),
        Reason.INVALID_REQUEST,
    ),
    ("no-handover", leg("bad", Leg.DECODE, [7]), Reason.INVALID_REQUEST),
)


@pytest.mark.parametrize(("request_", "reason"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
async def test_bad_input_is_refused_and_the_engine_goes_on(
    pair: Pair, request_: LegRequest, reason: Reason
) -> None:
    """Each has its reason, leaves nothing behind and harms nobody."""
    with pytest.raises(ReadaheadError) as caught:
        await answer(pair.decode, request_)
    assert caught.value.reason is reason
    assert await is_empty(pair.decode)
    assert await pair.decode.is_healthy()
    good = await answer(pair.decode, leg("good", Leg.WHOLE, [7, 8, 9]))
    assert len(good.token_ids) == 32


async def test_context_end_ends_the_output(pair: Pair) -> None:
    """Output that would leave the context ends with reason length."""
    sampling = Sampling(max_tokens=500, temperature=0.0, ignore_eos=True)
    ended = await answer(pair.decode, leg("edge", Leg.WHOLE, prompt_of(4090, salt=20), sampling))
    assert ended.end == LegEnd(finish_reason=FinishReason.LENGTH)
    assert len(ended.token_ids) == 6


async def test_vllm_metrics_are_in_the_default_registry(pair: Pair) -> None:
    """With vLLM's own names, NIXL's transfer times included."""
    from prometheus_client import generate_latest

    await answer(pair.decode, leg("metrics", Leg.WHOLE, [7, 8, 9]))
    exposed = generate_latest().decode()
    for name in ("vllm:num_requests_running", "vllm:nixl_xfer_time_seconds_count"):
        assert f"\n{name}{{" in exposed


async def test_another_vllm_is_refused_at_start(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names what is missing and the version to install."""
    from readahead.services.engine import vllm_internals
    from readahead.services.engine.vllm import VllmEngine

    vllm_internals.check_internals()
    gone = ((VllmEngine, ("no_such_thing",)),)
    monkeypatch.setattr(vllm_internals, "_ATTRIBUTES", gone)
    with pytest.raises(
        RuntimeError, match=r"lacks VllmEngine\.no_such_thing.*Install vLLM 0\.32\.0"
    ):
        vllm_internals.check_internals()
