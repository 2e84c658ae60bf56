"""The emulated engine's times, limits and leases."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.core.request import FinishReason, Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_link import Handover, Handovers
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.engine import LegOutput, LegRequest, Sampling

ITERATION_S = 0.004
PROFILE = EmulatedProfile(
    model="m",
    latency=LatencyModel(name="constant", planes=(LatencyPlane(base_s=ITERATION_S),)),
    context_tokens_max=256,
    kv_blocks=32,
    requests_max=4,
)


def leg(name: str, kind: Leg = Leg.WHOLE, *, handover: bytes = b"") -> LegRequest:
    return LegRequest(
        key=(RequestId(name), 1),
        leg=kind,
        prompt_token_ids=[1, 2, 3] * 20,
        sampling=Sampling(max_tokens=10),
        handover=handover,
    )


async def run(engine: EmulatedEngine, request: LegRequest) -> list[LegOutput]:
    return [output async for output in engine.run(request)]


async def hand_over(engine: EmulatedEngine, name: str) -> bytes:
    (output,) = await run(engine, leg(name, Leg.PREFILL))
    assert output.end is not None
    return output.end.handover


async def test_iterations_keep_their_time() -> None:
    """Iterations take the model's time: a hundred late wake-ups do not add up."""
    engine = EmulatedEngine(PROFILE, role=Role.DECODE)
    await engine.open()
    started = monotonic_s()
    sampling = Sampling(max_tokens=100)
    await run(engine, replace(leg("a"), sampling=sampling))
    took_s = monotonic_s() - started
    await engine.close()
    assert 0 <= took_s - 100 * ITERATION_S < 25 * ITERATION_S


async def test_legs_beyond_the_batch_wait() -> None:
    """More legs than a batch holds wait in the queue, and all end."""
    engine = EmulatedEngine(PROFILE, role=Role.DECODE)
    await engine.open()
    async with asyncio.TaskGroup() as tasks:
        for index in range(10):
            tasks.create_task(run(engine, leg(f"r{index}")))
        await wait_until(lambda: engine.load().running == 4)
        assert engine.load().waiting == 6
    assert (engine.load().running, engine.load().waiting) == (0, 0)
    engine.check()
    await engine.close()


async def test_output_stops_at_the_context() -> None:
    """Prompt and output together never exceed the context."""
    engine = EmulatedEngine(PROFILE, role=Role.DECODE)
    await engine.open()
    request = replace(leg("a"), prompt_token_ids=[1] * 250, sampling=Sampling(max_tokens=1000))
    outputs = await run(engine, request)
    await engine.close()
    assert sum(len(output.token_ids) for output in outputs) == 6
    assert outputs[-1].end is not None
    assert outputs[-1].end.finish_reason is FinishReason.LENGTH


async def test_a_stop_string_ends_the_output() -> None:
    """Output ends before the stop string, but not within min_tokens."""
    engine = EmulatedEngine(PROFILE, role=Role.DECODE)
    await engine.open()
    whole = "".join(output.text for output in await run(engine, leg("a")))
    stop = " " + whole.split()[2]
    sampling = Sampling(max_tokens=10, stop=(stop,))
    outputs = await run(engine, replace(leg("b"), sampling=sampling))
    assert "".join(output.text for output in outputs) == whole[: whole.index(stop)]
    assert outputs[-1].end is not None
    assert outputs[-1].end.finish_reason is FinishReason.STOP
    late = replace(sampling, min_tokens=5)
    assert "".join(o.text for o in await run(engine, replace(leg("c"), sampling=late))) == whole
    await engine.close()


async def test_a_pull_that_fails_computes_the_prompt_here() -> None:
    """When the source has dropped the KV, or is gone, output is the same and nothing is pulled."""
    prefill = EmulatedEngine(PROFILE, role=Role.PREFILL)
    decode = EmulatedEngine(PROFILE, role=Role.DECODE)
    await prefill.open()
    await decode.open()
    expected = [o.text for o in await run(decode, leg("whole"))]
    dropped = await hand_over(prefill, "a")
    await prefill.release_handovers([(RequestId("a"), 1)])
    assert [o.text for o in await run(decode, leg("a", Leg.DECODE, handover=dropped))] == expected
    orphaned = await hand_over(prefill, "b")
    await prefill.close()
    assert [o.text for o in await run(decode, leg("b", Leg.DECODE, handover=orphaned))] == expected
    assert (await decode.inspect()).transfers_total == 0
    decode.check()
    await decode.close()


async def test_a_foreign_handover_is_refused() -> None:
    """Bytes that are no handover, or that of another prompt, are an invalid request."""
    prefill = EmulatedEngine(PROFILE, role=Role.PREFILL)
    await prefill.open()
    handover = await hand_over(prefill, "a")
    for request in (
        leg("b", Leg.DECODE, handover=b"{}"),
        leg("b", Leg.DECODE, handover=b"\xff"),
        replace(leg("b", Leg.DECODE, handover=handover), prompt_token_ids=[9]),
    ):
        with pytest.raises(ReadaheadError) as caught:
            await run(prefill, request)
        assert caught.value.reason is Reason.INVALID_REQUEST
    await prefill.close()


async def test_a_leg_aborted_before_its_handover_is_taken_holds_nothing() -> None:
    """A prefill leg whose end nobody takes frees its KV."""
    engine = EmulatedEngine(PROFILE, role=Role.PREFILL)
    await engine.open()
    task = asyncio.get_running_loop().create_task(run(engine, leg("a", Leg.PREFILL)))
    await wait_until(lambda: engine.load().running == 1)
    task.cancel()
    await asyncio.wait([task])
    await wait_until(lambda: engine.load().kv_blocks_free == PROFILE.kv_blocks)
    assert (await engine.inspect()).handovers_held == 0
    await engine.close()


def test_leases_run_out_unless_renewed_or_read() -> None:
    """An expired handover frees its blocks once; a renewed one, or one being read, stays."""
    freed: list[int] = []
    clock = [0.0]
    handovers = Handovers(lease_s=10, now=lambda: clock[0], give=freed.append)
    for name in ("expired", "renewed", "read"):
        handover = Handover(
            request_id=name,
            attempt=1,
            source="127.0.0.1:1",
            prompt_tokens=16,
            prompt_checksum=0,
            wire_bytes=1,
        )
        handovers.keep(handover, blocks=1)
    assert handovers.next_expiry() == 10
    clock[0] = 6.0
    assert handovers.renew([(RequestId("renewed"), 1), (RequestId("none"), 1)]) == [("none", 1)]
    held = handovers.get((RequestId("read"), 1))
    assert held is not None
    held.pullers = 1
    clock[0] = 11.0
    handovers.expire()
    assert (freed, len(handovers), handovers.blocks) == ([1], 2, 2)
    assert handovers.next_expiry() == 16
    clock[0] = 16.0
    handovers.expire()
    held.pullers = 0
    handovers.expire()
    handovers.release([(RequestId("read"), 1)])
    assert (freed, len(handovers)) == ([1, 1, 1], 0)


def test_profile_reads_the_model_folder(tmp_path: Path) -> None:
    """Vocabulary, context and a token's KV size are the model's; without a folder, the default."""
    facts = {
        "vocab_size": 2048,
        "max_position_embeddings": 4096,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 256,
    }
    (tmp_path / "config.json").write_text(json.dumps(facts))
    config = EngineConfig(kind="emulated", model_path=str(tmp_path), kv_bytes=64 << 20)
    profile = EmulatedProfile.load(config)
    assert (profile.vocabulary_tokens, profile.context_tokens_max) == (2048, 4096)
    assert profile.kv_blocks == (64 << 20) // (2 * 4 * 2 * 64 * 2 * 16)
    assert profile.model == tmp_path.name
    plain = EmulatedProfile.load(EngineConfig(kind="emulated", model_name="n"))
    assert (plain.model, plain.kv_blocks, plain.context_tokens_max) == ("n", 26_000, 8192)
    small = EmulatedProfile.load(EngineConfig(kind="emulated", kv_bytes=64 << 20))
    assert small.context_tokens_max == small.kv_blocks * small.block_tokens == 512


def test_profile_scales_every_time() -> None:
    """The time scale applies to iterations and transfers alike."""
    fast = EmulatedProfile.load(EngineConfig(kind="emulated", emulated_time_scale=0.1))
    slow = EmulatedProfile.load(EngineConfig(kind="emulated"))
    assert fast.transfer_s(1000) == pytest.approx(slow.transfer_s(1000) / 10)
    assert slow.transfer_s(2048) == pytest.approx(0.034, rel=0.02)
