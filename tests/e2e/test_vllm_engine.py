"""Laws of `VllmEngine`, on one prefill and one decode engine on the CPU."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from engine_pairs import (
    LEASE_S,
    Pair,
    answer,
    is_empty,
    leg,
    prompt_of,
)
from vllm_process import engine_cores, wait_no_cores, wait_until

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegEnd, LegRequest, Sampling

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(180),
]


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
    await wait_no_cores(os.getpid())


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


async def test_closing_the_iterator_frees_everything(pair: Pair) -> None:
    """After the first news of a long answer, nothing is left in the engine."""
    sampling = Sampling(max_tokens=2000, ignore_eos=True)
    outputs = pair.prefill.run(leg("closed", Leg.WHOLE, prompt_of(1500, salt=18), sampling))
    await anext(outputs)
    assert not await is_empty(pair.prefill)
    await outputs.aclose()  # type: ignore[attr-defined]  # an async generator
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


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
    pair: Pair, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The error names what is missing and the version to install; no process is left."""
    from readahead.services.engine import vllm_internals
    from readahead.services.engine.vllm import VllmEngine

    cores = engine_cores(os.getpid())
    monkeypatch.setattr(vllm_internals, "installed_folder", lambda: tmp_path)
    with pytest.raises(RuntimeError, match=r"lacks .*AsyncLLM.*Install vLLM 0\.32\.0"):
        await VllmEngine.start(EngineConfig(model_path="none"), KvConfig(), Role.DECODE)
    assert engine_cores(os.getpid()) == cores
