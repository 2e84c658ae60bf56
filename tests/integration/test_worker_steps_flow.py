"""Steps streams under load, over real gRPC."""

from __future__ import annotations

import asyncio

from fake_engine import FakeEngine, silent
from worker_server import StepReader, running_worker, submit_request, wait_until, worker_stub

from readahead.core.cluster import Role
from readahead.core.request import RequestId
from readahead.services.config import KvConfig
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_profile import EmulatedProfile

LEGS = 64


async def test_one_message_per_engine_step() -> None:
    """64 legs that get a token in the same engine step make one message, at each of 50 steps."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        for index in range(LEGS):
            await stub.Submit(submit_request(f"r{index}"))
        await wait_until(lambda: len(engine.legs) == LEGS)
        before = len(reader.messages)
        for _ in range(50):
            engine.step()
            message = await reader.read()
            assert message is not None
            assert len(message.deltas) == LEGS
        assert len(reader.messages) - before == 50


async def test_emulated_steps_are_messages() -> None:
    """An engine that runs on its own makes about as many messages as iterations."""
    profile = EmulatedProfile(model="emulated")
    engine = EmulatedEngine(profile, role=Role.DECODE, kv=KvConfig())
    await engine.open()
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
    ):
        reader = await StepReader(stub).open()
        for index in range(LEGS):
            await stub.Submit(submit_request(f"r{index}", max_tokens=50))
        names = [f"r{index}" for index in range(LEGS)]
        await reader.read_until(lambda r: r.end(names[-1]) is not None)
        await reader.read_until(lambda r: all(r.end(name) is not None for name in names))
    await engine.close()
    assert all(len(reader.token_ids(name)) == 50 for name in names)
    # 50 iterations, a few more while the legs come in one by one, a heartbeat or two.
    assert len(reader.messages) <= 50 + 30


async def test_a_router_that_does_not_read_costs_a_bounded_amount() -> None:
    """A stalled router's news is merged, other routers are served, and nothing is lost to it."""
    engine = FakeEngine(silent)
    async with (
        running_worker(engine) as worker,
        worker_stub(worker.identity.address) as stub,
        worker_stub(worker.identity.address) as other_stub,
    ):
        stalled = await StepReader(stub, router_id="stalled").open()
        reading = await StepReader(other_stub, router_id="reading").open()
        await stub.Submit(submit_request("a", router_id="stalled"))
        await stub.Submit(submit_request("b", router_id="reading"))
        await wait_until(lambda: len(engine.legs) == 2)
        for _ in range(300):  # 1.2 M tokens: far more than the windows of HTTP/2 hold
            engine.step(4000)
            await asyncio.sleep(0)
        for name in ("a", "b"):
            engine.finish((RequestId(name), 1))
        await reading.read_until(lambda r: r.end("b") is not None)
        assert len(reading.token_ids("b")) == 1_200_000
        await stalled.read_until(lambda r: r.end("a") is not None)
        assert len(stalled.token_ids("a")) == 1_200_000
