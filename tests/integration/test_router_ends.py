"""However a request ends, and wherever it is then, nothing of it is left on any worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from cluster_in_process import (
    Cluster,
    cluster,
    collect,
    generate_request,
    leg_keys,
    pulling,
    wait_stage,
)
from fake_engine import FakeEngine, echo, silent
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.request import Leg, RequestId, Stage
from readahead.services.engine.engine import LegOutput
from readahead.v1 import inference_service_pb2 as pb

LONG = list(range(64))
"""Goes through both pools."""
SHORT = [1, 2, 3]
"""Runs whole on a decode worker."""

FIRST_TOKEN = LegOutput(token_ids=[5], text=" five", wait_s=0.001, first_token_s=0.001)

STAGES = ["queued", "prefilling", "handover", "before-first-token", "decoding"]


@asynccontextmanager
async def request_in(stage: str) -> AsyncIterator[tuple[Cluster, FakeEngine, FakeEngine]]:
    """A cluster in which a request called "r" will get to a stage and stay there."""
    prefill = FakeEngine(silent if stage == "prefilling" else echo, model="toy")
    decode = FakeEngine(silent, model="toy", requests_max=1 if stage == "handover" else 8)
    if stage == "decoding":
        decode.script = pulling(prefill, lambda _: [FIRST_TOKEN])
    engines = {"p0": (Role.PREFILL, prefill)}
    if stage != "queued":
        engines["d0"] = (Role.DECODE, decode)
    async with cluster(engines) as running:
        blocker = None
        if stage == "handover":
            blocker = running.stub.Generate(generate_request(SHORT, request_id="blocker"))
            await wait_until(lambda: bool(decode.legs))
        yield running, prefill, decode
        if blocker is not None:
            blocker.cancel()
        sessions = running.router.driver.sessions
        await wait_until(lambda: not (sessions or prefill.legs or decode.legs or prefill.handovers))


async def wait_there(running: Cluster, stage: str, decode: FakeEngine) -> None:
    """Waits until "r" is in the stage, on the worker as well."""
    core_stage = Stage.DECODING if stage == "before-first-token" else Stage(stage)
    await wait_stage(running, "r", core_stage)
    if core_stage is Stage.DECODING:
        await wait_until(lambda: bool(leg_keys(decode, Leg.DECODE)))
    if stage == "decoding":
        await wait_until(lambda: running.router.driver.sessions[RequestId("r")].output_tokens > 0)


async def wait_gone(running: Cluster, prefill: FakeEngine, decode: FakeEngine) -> None:
    """Waits until nothing of "r" is left anywhere."""
    await wait_until(
        lambda: (
            RequestId("r") not in running.router.driver.sessions
            and not prefill.legs
            and not leg_keys(decode, Leg.DECODE)
            and not prefill.handovers
        )
    )


@pytest.mark.parametrize("stage", STAGES)
async def test_cancel_frees_everything(stage: str) -> None:
    """A Cancel from another connection ends the stream as CANCELLED and frees the workers."""
    async with request_in(stage) as (running, prefill, decode):
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_there(running, stage, decode)
            await running.stub.Cancel(pb.CancelRequest(request_id="r"))
        error = answer.result().error
        assert error is not None
        assert error.code() is grpc.StatusCode.CANCELLED
        await wait_gone(running, prefill, decode)


@pytest.mark.parametrize("stage", STAGES)
async def test_client_that_vanishes_frees_everything(stage: str) -> None:
    """A broken connection is a cancel."""
    async with request_in(stage) as (running, prefill, decode):
        call = running.stub.Generate(generate_request(LONG, request_id="r"))
        await wait_there(running, stage, decode)
        call.cancel()
        await wait_gone(running, prefill, decode)
        explanation = running.router.sessions.explain(RequestId("r"))
        assert explanation is not None
        assert explanation.stage is Stage.CANCELLED


@pytest.mark.parametrize("stage", STAGES)
async def test_deadline_frees_everything(stage: str) -> None:
    """The call's deadline ends the request on the workers too."""
    async with request_in(stage) as (running, prefill, decode):
        call = running.stub.Generate(generate_request(LONG, request_id="r"), timeout=0.5)
        async with asyncio.TaskGroup() as tasks:
            answer = tasks.create_task(collect(call))
            await wait_there(running, stage, decode)
        error = answer.result().error
        assert error is not None
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await wait_gone(running, prefill, decode)
        explanation = running.router.sessions.explain(RequestId("r"))
        assert explanation is not None
        assert explanation.stage in (Stage.FAILED, Stage.REJECTED)
