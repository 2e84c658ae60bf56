"""One suite for every transport of KV caches: the same contract between two real engines.

docs/explanation/kv-transfer.md says which of its lines a transport cannot be made to show.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from engine_pairs import (
    LEASE_S,
    Pair,
    answer,
    books,
    changed,
    is_empty,
    leg,
    prompt_of,
    started,
)
from tcp_link import tcp_link
from vllm_process import engine_cores, wait_no_cores, wait_until

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.engine import LegEnd, LegRequest

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]

TRANSPORTS = ["nixl", "grpc", pytest.param("auto", marks=pytest.mark.slow)]
NOWHERE = "127.0.0.1:9"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def transport(request: pytest.FixtureRequest) -> str:
    """Its name."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(transport: str) -> AsyncIterator[Pair]:
    """Two engines, and after the tests nothing of them."""
    async with AsyncExitStack() as engines:
        prefill = await engines.enter_async_context(started(transport, Role.PREFILL))
        decode = await engines.enter_async_context(started(transport, Role.DECODE))
        yield Pair(prefill, decode, Path(os.devnull))
    await wait_no_cores(os.getpid())


async def failures(engine: VllmEngine) -> dict[str, int]:
    """Pulls that have failed, by reason."""
    counts = await books(engine)
    return {name.removeprefix("failed_"): n for name, n in counts.items() if "failed_" in name}


async def prefilled(pair: Pair, name: str, prompt: Sequence[int]) -> tuple[LegRequest, bytes]:
    """A held handover, and the leg that made it."""
    request = leg(name, Leg.PREFILL, prompt)
    return request, (await answer(pair.prefill, request)).end.handover


async def is_computed_again(
    pair: Pair, target: VllmEngine, request: LegRequest, handover: bytes
) -> list[str]:
    """Runs a decode leg whose handover cannot be had; returns the reasons counted for it.

    Its output must be that of the target alone, and nothing of it may stay anywhere.
    """
    name, prompt = str(request.key[0]), request.prompt_token_ids
    before = await failures(target)
    decoded = await answer(target, replace(leg(name, Leg.DECODE, prompt), handover=handover))
    after = await failures(target)
    whole = await answer(target, leg(f"{name}-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    assert decoded.end == LegEnd(finish_reason=FinishReason.LENGTH)
    await wait_until(lambda: is_empty(target), limit_s=5)
    return [reason for reason, count in after.items() if count > before.get(reason, 0)]


def elsewhere(handover: bytes, address: str) -> bytes:
    """The handover of an engine that nobody has met yet, at that address."""
    host, _, port = address.rpartition(":")
    return changed(
        handover,
        remote_engine_id="a-stranger",
        remote_host=host,
        remote_port=int(port),
        remote_addresses=[address],
        remote_streams=[address],
    )


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
    request, _ = await prefilled(pair, "released", prompt_of(800, salt=15))
    assert not await is_empty(pair.prefill)
    await pair.prefill.release_handovers([request.key, (RequestId("never-there"), 3)])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)
    assert pair.prefill.load().kv_blocks_free == pair.prefill.description.kv_blocks


@pytest.mark.slow
async def test_renewed_handover_outlives_its_lease(pair: Pair) -> None:
    """Renewed it is held past the lease and can still be pulled; another one is not."""
    prompt = prompt_of(400, salt=16)
    kept, handover = await prefilled(pair, "kept", prompt)
    dropped, _ = await prefilled(pair, "dropped", prompt_of(200, salt=17))
    unknown = (RequestId("never-there"), 1)
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
    decoded = await answer(pair.decode, replace(leg("kept", Leg.DECODE, prompt), handover=handover))
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


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.004, 0.008, 0.016, 0.05])
async def test_cancelled_decode_frees_both_sides(pair: Pair, after_s: float) -> None:
    """Before its pull, in it, or after it; with the release that the router sends each time."""
    prompt = prompt_of(1500, salt=200 + int(after_s * 1000))
    request, handover = await prefilled(pair, f"abandoned-{after_s}", prompt)
    decode = replace(leg(str(request.key[0]), Leg.DECODE, prompt), handover=handover)
    task = asyncio.create_task(answer(pair.decode, decode))
    await asyncio.wait([task], timeout=after_s)
    task.cancel()
    await asyncio.wait([task])
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=2)
    await wait_until(lambda: is_empty(pair.decode), limit_s=2)


async def test_handover_of_a_restarted_source_is_refused(pair: Pair) -> None:
    """Another engine has its place, and the KV is gone with the first one."""
    request, handover = await prefilled(pair, "restarted", prompt_of(300, salt=21))
    lost = changed(handover, remote_engine_id="the-one-before")
    assert await is_computed_again(pair, pair.decode, request, lost) == [Reason.KV_EXPIRED]
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


async def test_source_that_does_not_answer_is_lost(pair: Pair) -> None:
    """After bounded tries."""
    request, handover = await prefilled(pair, "unreachable", prompt_of(300, salt=22))
    lost = elsewhere(handover, NOWHERE)
    assert await is_computed_again(pair, pair.decode, request, lost) == [Reason.WORKER_LOST]
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


async def test_handover_that_does_not_fit_its_prompt_is_refused(pair: Pair) -> None:
    """Before the engine core sees it."""
    request, handover = await prefilled(pair, "misfit", prompt_of(300, salt=23))
    short = changed(handover, remote_block_ids=[[0]])
    decode = replace(leg("misfit", Leg.DECODE, request.prompt_token_ids), handover=short)
    with pytest.raises(ReadaheadError) as caught:
        await answer(pair.decode, decode)
    assert caught.value.reason is Reason.INVALID_REQUEST
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)
    assert await is_empty(pair.decode)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the pull", "in the pull"])
async def test_killed_source_costs_the_target_a_prompt_and_no_more(
    pair: Pair, transport: str, moment: str
) -> None:
    """Kill -9: the answer is the same, the reason one of the closed set, and nothing is pinned."""
    others = set(engine_cores(os.getpid()))
    async with started(transport, Role.PREFILL) as source:
        (core,) = set(engine_cores(os.getpid())) - others
        doomed = Pair(source, pair.decode, pair.decode_log)
        prompt = prompt_of(3000, salt=24 + len(moment))
        request, handover = await prefilled(doomed, f"killed {moment}", prompt)
        if moment == "before the pull":
            os.kill(core, signal.SIGKILL)
            reasons = await is_computed_again(doomed, pair.decode, request, handover)
            assert set(reasons) <= {Reason.WORKER_LOST, Reason.STREAM_BROKEN}
            assert reasons
        else:  # it may be over before the kill: then the answer is that of the pull
            again = asyncio.create_task(is_computed_again(doomed, pair.decode, request, handover))
            await asyncio.wait([again], timeout=0.002)
            os.kill(core, signal.SIGKILL)
            assert set(await again) <= {Reason.WORKER_LOST, Reason.STREAM_BROKEN}


@pytest.mark.slow
async def test_killed_target_leaves_the_source_its_lease(pair: Pair, transport: str) -> None:
    """Kill -9 of whoever pulls: what it had asked for is free when the lease ends, or before."""
    others = set(engine_cores(os.getpid()))
    async with started(transport, Role.DECODE) as target:
        (core,) = set(engine_cores(os.getpid())) - others
        prompt = prompt_of(3000, salt=26)
        request, handover = await prefilled(pair, "target-killed", prompt)
        decode = replace(leg(str(request.key[0]), Leg.DECODE, prompt), handover=handover)
        task = asyncio.create_task(answer(target, decode))
        await asyncio.wait([task], timeout=0.003)
        os.kill(core, signal.SIGKILL)
        await asyncio.wait([task])
        assert isinstance(task.exception(), ReadaheadError)
    await wait_until(lambda: is_empty(pair.prefill), limit_s=LEASE_S + 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reason_over_grpc"),
    [("model", Reason.MODEL_NOT_FOUND), ("version", Reason.UNSUPPORTED)],
)
async def test_other_kind_of_engine_is_refused(
    pair: Pair,
    transport: str,
    kind: str,
    reason_over_grpc: Reason,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another model, another vLLM. NIXL compares one digest of both, so it names no model."""
    from readahead.services.engine import vllm_setup

    changes: dict[str, Any] = {}
    if kind == "model":
        tiny_model.make(tiny_model.TinyModel(layers=2), tmp_path / "other")
        changes = {"model_path": str(tmp_path / "other"), "model_name": "other"}
    else:
        ours = vllm_setup._kv_transfer_config
        monkeypatch.setattr(vllm_setup, "_kv_transfer_config", partial(_strange, ours))
    request, handover = await prefilled(pair, f"other-{kind}", prompt_of(300, salt=27))
    expected = {Reason.UNSUPPORTED} if transport == "nixl" else {reason_over_grpc}
    if transport == "auto" and kind == "model":
        expected = {Reason.UNSUPPORTED, reason_over_grpc}
    async with started(transport, Role.DECODE, **changes) as stranger:
        reasons = await is_computed_again(pair, stranger, request, handover)
    assert set(reasons) == expected
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


def _strange(ours: Any, *arguments: Any) -> Any:
    config = ours(*arguments)
    config.kv_connector_module_path = "strange_version"
    return config


@pytest.mark.slow
@pytest.mark.parametrize("block_tokens", [64, 256])
async def test_other_block_size_is_refused(
    pair: Pair, transport: str, block_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the pull, where the prompt would fill more blocks than the handover has; else by
    whoever would send it."""
    from readahead.services.engine import vllm_setup

    arguments = partial(vars(vllm_setup)["AsyncEngineArgs"], block_size=block_tokens)
    monkeypatch.setattr(vllm_setup, "AsyncEngineArgs", arguments)
    prompt = prompt_of(300, salt=29 + block_tokens)
    request, handover = await prefilled(pair, f"blocks-{block_tokens}", prompt)
    async with started(transport, Role.DECODE) as stranger:
        assert stranger.description.block_tokens == block_tokens
        if block_tokens < pair.prefill.description.block_tokens:
            decode = leg(str(request.key[0]), Leg.DECODE, prompt)
            with pytest.raises(ReadaheadError) as caught:
                await answer(stranger, replace(decode, handover=handover))
            assert caught.value.reason is Reason.INVALID_REQUEST
            assert await is_empty(stranger)
        else:
            reasons = await is_computed_again(pair, stranger, request, handover)
            assert set(reasons) == {Reason.UNSUPPORTED}
    await pair.prefill.release_handovers([request.key])
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)


async def test_connection_cut_in_the_pull_is_opened_again(pair: Pair, transport: str) -> None:
    """For what is missing; the output is the same. Over gRPC: NIXL's own links cannot be cut."""
    if transport != "grpc":
        pytest.skip("UCX's links are not ours to cut; a killed source shows what comes of it")
    prompt = prompt_of(3900, salt=28)
    _, handover = await prefilled(pair, "cut", prompt)
    (source,) = json.loads(handover)["remote_streams"]
    before = await books(pair.decode)
    async with tcp_link(source) as link:
        decode = replace(
            leg("cut", Leg.DECODE, prompt),
            handover=changed(handover, remote_streams=[link.address]),
        )
        link.freeze()
        task = asyncio.create_task(answer(pair.decode, decode))
        await asyncio.wait([task], timeout=0.05)
        link.cut()
        link.mend()
        link.thaw()
        decoded = await task
    after = await books(pair.decode)
    whole = await answer(pair.prefill, leg("cut-whole", Leg.WHOLE, prompt))
    assert decoded.token_ids == whole.token_ids
    assert after["pull_retries"] > before["pull_retries"]
    assert after["transfers_total"] == before["transfers_total"] + 1
    await wait_until(lambda: is_empty(pair.prefill), limit_s=1)
