"""A worker as a process: what it tells the store, the tracer and its supervisor."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import urllib.request
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from otlp_receiver import OtlpReceiver, otlp_receiver
from redis_process import RedisProcess, free_port, redis_process
from worker_server import StepReader, submit_request, worker_stub

from readahead.core.cluster import Role
from readahead.runtime.clock import monotonic_s
from readahead.runtime.store.connect import connect
from readahead.runtime.store.store import WorkerRecord
from readahead.runtime.telemetry import attributes
from readahead.v1 import worker_service_pb2 as pb

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

PROGRAM = """
import asyncio, json, sys
from pydantic import TypeAdapter
from readahead.services.config import WorkerConfig
from readahead.services.worker.app import serve
config = TypeAdapter(WorkerConfig).validate_python(json.loads(sys.argv[1]))
ready = lambda address: print("READY", address, file=sys.stderr, flush=True)
{extra}
asyncio.run(serve(config, ready=ready))
"""

SICK = """
from readahead.services.engine.emulated import EmulatedEngine
async def is_healthy(self): return False
EmulatedEngine.is_healthy = is_healthy
"""


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with redis_process() as running:
        yield running


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as running:
        yield running


@asynccontextmanager
async def worker_process(
    config: Mapping[str, Any], *, extra: str = ""
) -> AsyncIterator[tuple[Process, str]]:
    """A worker with an emulated engine, and its address."""
    settings = {"role": "decode", "worker_id": "w", "engine": {"kind": "emulated"}, **config}
    program = PROGRAM.format(extra=extra)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, json.dumps(settings), stdout=PIPE, stderr=PIPE
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            words = (await process.stderr.readline()).split()
        assert words[:1] == [b"READY"], words
        yield process, words[1].decode()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def exit_status(process: Process) -> int:
    async with asyncio.timeout(30):
        return await process.wait()


async def events(process: Process) -> list[str]:
    """What an ended process has logged."""
    assert process.stdout is not None
    return [json.loads(line)["event"] for line in (await process.stdout.read()).splitlines()]


async def records(url: str) -> list[WorkerRecord]:
    store = connect(url)
    try:
        return list(await store.workers())
    finally:
        await store.close()


async def wait_registered(url: str, *, limit_s: float = 10.0) -> WorkerRecord:
    ends_at = monotonic_s() + limit_s
    while not (found := await records(url)):
        assert monotonic_s() < ends_at, "the worker does not register"
        await asyncio.sleep(0.02)
    return found[0]


async def test_sigterm_drains_and_withdraws(redis: RedisProcess) -> None:
    """A worker that is told to stop refuses new legs, finishes the others and leaves the store."""
    config = {"membership": {"redis_url": redis.url, "lease_s": 60}}
    async with (
        worker_process(config) as (process, address),
        worker_stub(address) as stub,
    ):
        record = await wait_registered(redis.url)
        assert (record.address, record.role) == (address, Role.DECODE)
        described = await stub.Describe(pb.DescribeRequest())
        assert described.incarnation == record.incarnation
        reader = await StepReader(stub).open()
        await stub.Submit(submit_request("a", max_tokens=60))
        await reader.read_until(lambda r: bool(r.deltas("a")))
        process.send_signal(signal.SIGTERM)
        while not (await stub.Describe(pb.DescribeRequest())).draining:
            pass
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Submit(submit_request("b"))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await reader.read_until(lambda r: r.end("a") is not None)
        assert len(reader.token_ids("a")) == 60
        assert await exit_status(process) == 0
        assert not await records(redis.url)


async def test_a_second_process_of_the_name_ends_the_first(redis: RedisProcess) -> None:
    """A fenced worker exits with an error and leaves the newer record alone."""
    config = {"membership": {"redis_url": redis.url, "lease_s": 0.6}}
    async with worker_process(config) as (first, first_address):
        assert (await wait_registered(redis.url)).address == first_address
        async with worker_process(config) as (second, address):
            assert await exit_status(first) == 1
            assert "worker_fenced" in await events(first)
            assert second.returncode is None
            assert (await wait_registered(redis.url)).address == address


async def test_a_dead_engine_ends_the_process() -> None:
    """The process exits with an error when its engine is dead, for its supervisor to see."""
    async with worker_process({}, extra=SICK) as (process, _):
        assert await exit_status(process) == 1
        assert "engine_dead" in await events(process)


async def test_spans_and_metrics(receiver: OtlpReceiver) -> None:
    """A leg is a span under the router's, with sizes and outcome; and counted."""
    port = free_port()
    telemetry = {"otlp_endpoint": receiver.endpoint, "metrics_port": port}
    async with (
        worker_process({"telemetry": telemetry}) as (process, address),
        worker_stub(address) as stub,
    ):
        reader = await StepReader(stub).open()
        metadata = (("traceparent", TRACEPARENT),)
        await stub.Submit(submit_request("a"), metadata=metadata)
        await reader.read_until(lambda r: r.end("a") is not None)
        await stub.Submit(submit_request("b", max_tokens=4000), metadata=metadata)
        await stub.Cancel(pb.WorkerServiceCancelRequest(request_id="b", attempt=1))
        await reader.read_until(lambda r: r.end("b") is not None)
        page = await asyncio.to_thread(read, f"http://127.0.0.1:{port}/metrics")
        process.send_signal(signal.SIGTERM)
        assert await exit_status(process) == 0
    spans = await receiver.wait(lambda spans: len(spans) == 2)
    (done,) = spans.with_attribute(attributes.REQUEST_ID, "a")
    (cancelled,) = spans.with_attribute(attributes.REQUEST_ID, "b")
    assert (done.name, done.service_name, done.instance_id) == (
        attributes.SPAN_WORKER_DECODE,
        attributes.SERVICE_DECODE,
        "w",
    )
    assert f"00-{done.trace_id}-{done.parent_span_id}-01" == TRACEPARENT
    assert done.attributes[attributes.INPUT_TOKENS] == 3
    assert done.attributes[attributes.OUTPUT_TOKENS] == 4
    assert done.attributes[attributes.FINISH_REASONS] == ["length"]
    assert done.status == "UNSET"
    assert (cancelled.status, cancelled.attributes[attributes.ERROR_REASON]) == (
        "ERROR",
        "CANCELLED",
    )
    assert 'readahead_worker_legs_total{leg="whole",outcome="length"} 1.0' in page
    assert 'readahead_worker_legs_total{leg="whole",outcome="cancelled"} 1.0' in page
    assert 'readahead_worker_first_token_seconds_count{leg="whole"} 1.0' in page


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        page: bytes = response.read()
        return page.decode()
