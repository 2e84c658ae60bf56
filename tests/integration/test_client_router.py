"""The SDK and the load generator against a real router over emulated workers."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cluster_in_process import MODEL, Cluster, cluster, toy_engine, toy_output
from rich.console import Console

from readahead.client import (
    AsyncClient,
    Client,
    Delta,
    FinishReason,
    InvalidRequestError,
    NotFoundError,
)
from readahead.core.cluster import Role
from readahead.loadgen.load import ExitStatus, LoadSettings, Screens, load
from readahead.loadgen.load_plain import PlainSpec
from readahead.loadgen.senders import SendOptions
from readahead.loadgen.session_run import RunLimits
from readahead.workload.arrivals import PoissonArrivals
from readahead.workload.lengths import FixedLength

LONG = list(range(1, 65))
"""Long enough for a remote prefill."""


@pytest.fixture
async def running() -> AsyncIterator[Cluster]:
    """A router, one prefill worker, one decode worker."""
    engines = {
        "p0": (Role.PREFILL, toy_engine(Role.PREFILL)),
        "d0": (Role.DECODE, toy_engine(Role.DECODE)),
    }
    async with cluster(engines) as each:
        yield each


async def test_both_clients_get_the_engines_answer(running: Cluster) -> None:
    """Text, tokens, usage and the split of the first token's time arrive as they were made."""
    token_ids, text = toy_output(LONG, 8)
    async with AsyncClient(running.router.grpc_address) as client:
        await client.wait_ready(10)
        assert [model.name for model in await client.models()] == [MODEL]
        whole = await client.generate(token_ids=LONG, max_tokens=8, temperature=0).collect()
        explanation = await client.explain(whole.request_id)
    assert (whole.text, list(whole.token_ids)) == (text, token_ids)
    assert whole.finish_reason is FinishReason.LENGTH
    assert (whole.usage.prompt_tokens, whole.usage.output_tokens) == (64, 8)
    assert whole.first_token.prefill_s is not None
    assert explanation.stage == "finished"
    assert "p0" in {decision.worker_id for decision in explanation.decisions}

    def blocking() -> str:
        with Client(running.router.grpc_address) as client:
            return client.generate(token_ids=LONG, max_tokens=8, temperature=0).collect().text

    assert await asyncio.to_thread(blocking) == text


async def test_cancelling_frees_the_engines(running: Cluster) -> None:
    """By the stream itself and by id from another connection."""
    async with AsyncClient(running.router.grpc_address) as client:
        async with client.generate(token_ids=LONG, max_tokens=4000, ignore_eos=True) as stream:
            async for event in stream:
                if isinstance(event, Delta):
                    await stream.report_reading(1)
                    break
        await running.wait_free()
        with pytest.raises(NotFoundError):
            await client.cancel("nobody")


async def test_refusals_arrive_as_the_tree_says(running: Cluster) -> None:
    """Reason and parameter come through from the router's checks."""
    async with AsyncClient(running.router.grpc_address) as client:
        with pytest.raises(InvalidRequestError) as too_long:
            await client.generate(token_ids=[1] * 5000).collect()
        with pytest.raises(NotFoundError) as unknown:
            await client.generate("hi", model="other").collect()
        with pytest.raises(InvalidRequestError) as hot:
            await client.generate("hi", temperature=9).collect()
    assert too_long.value.reason == "CONTEXT_TOO_LONG"
    assert (unknown.value.reason, unknown.value.parameter) == ("MODEL_NOT_FOUND", "model")
    assert hot.value.parameter is not None
    assert "temperature" in hot.value.parameter


@pytest.mark.parametrize("door", ["grpc", "http", "chat"])
async def test_load_through_each_door(running: Cluster, tmp_path: Path, door: str) -> None:
    """Every request finishes and has all of its token times."""
    router = running.router
    target = f"grpc://{router.grpc_address}" if door == "grpc" else f"http://{router.http_address}"
    path, screen = tmp_path / "run.jsonl", Console(file=io.StringIO())
    settings = LoadSettings(
        target=target,
        is_chat=door == "chat",
        workload=PlainSpec(
            seed=3,
            arrivals=PoissonArrivals(rate_req_s=20),
            requests=10,
            duration_s=None,
            prompt_lengths=FixedLength(tokens=20),
            output_lengths=FixedLength(tokens=6),
        ),
        options=SendOptions(model="", timeout_s=30, pace_tok_s=5.0, ignore_eos=True),
        limits=RunLimits(requests_max=50),
        model_path=None,
        records_path=path,
        description={},
    )
    status = await load(settings, Screens(out=screen, err=screen))
    assert status in {ExitStatus.OK, ExitStatus.INVALID}  # late on a busy machine
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["outcome"] for record in records] == ["finished"] * 10, records
    assert [record["output_tokens"] for record in records] == [6] * 10
    assert [len(record["token_times_s"]) for record in records] == [6] * 10
    await running.wait_free()
