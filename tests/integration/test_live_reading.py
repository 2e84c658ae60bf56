"""What a router tells of a request's reader: in frames, trailers, explanations and JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from cluster_in_process import Cluster, cluster, collect, generate_request, toy_engine
from fake_engine import FakeEngine, silent
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.request import RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.engine import LegOutput
from readahead.v1 import inference_service_pb2 as pb

PROMPT = [1] * 8


@pytest.fixture
async def running() -> AsyncIterator[Cluster]:
    """A router and a decode worker that is fast."""
    async with cluster({"d0": (Role.DECODE, toy_engine(Role.DECODE))}) as each:
        yield each


def paced(request_id: str, pace_tok_s: float) -> pb.GenerateRequest:
    request = generate_request(PROMPT, request_id=request_id)
    request.reading.pace_tok_s = pace_tok_s
    return request


async def trailer(call: Any) -> dict[str, str]:
    """What the stream ended with, of ours."""
    pairs = await call.trailing_metadata() or ()
    return {str(key): str(value) for key, value in pairs if str(key).startswith("readahead-")}


async def test_the_last_frame_and_the_trailer_say_the_same(running: Cluster) -> None:
    """A slow reader has most of eight quick tokens before him, and has not waited."""
    call = running.stub.Generate(paced("r", 1.0))
    answer = await collect(call)
    (finished,) = answer.finished
    assert finished.reading.pace_tok_s == 1.0
    assert finished.reading.pace_source == "explicit"
    assert finished.reading.unread_tokens in (7, 8)
    assert finished.reading.slack.ToTimedelta().total_seconds() > 6
    assert finished.reading.idle.ToNanoseconds() == 0
    assert await trailer(call) == {
        "readahead-idle-ms": "0",
        "readahead-unread-tokens": str(finished.reading.unread_tokens),
        "readahead-stalls": "0",
    }


async def test_explain_follows_the_reader_beyond_the_end(running: Cluster) -> None:
    """What is unread shrinks as he reads, and by his reports."""
    await collect(running.stub.Generate(paced("r", 0.5)))
    before = await running.stub.Explain(pb.ExplainRequest(request_id="r"))
    await running.stub.ReportReading(pb.ReportReadingRequest(request_id="r", tokens_read=6))
    after = await running.stub.Explain(pb.ExplainRequest(request_id="r"))
    assert (before.tokens_read, after.tokens_read) == (0, 6)
    assert before.reading.unread_tokens in (7, 8)
    assert after.reading.unread_tokens == 2


async def test_a_stream_that_fails_has_the_trailer_too() -> None:
    """The wait for what never came is in it."""
    engine = FakeEngine(silent, model="toy")
    async with cluster({"d0": (Role.DECODE, engine)}) as running:
        call = running.stub.Generate(paced("r", 100.0))
        await wait_until(lambda: bool(engine.legs))
        (key,) = engine.legs
        engine.emit(key, LegOutput(token_ids=[1], text="a"))
        reader = running.router.sessions.reader(RequestId("r"))
        assert reader is not None
        await wait_until(lambda: reader.clock.delivered == 1)
        await wait_until(lambda: reader.clock.slack_s(monotonic_s()) < -0.01)
        engine.fail(key)
        answer = await collect(call)
        ended = await trailer(call)
    assert answer.error is not None
    assert answer.error.code() is grpc.StatusCode.ABORTED
    assert int(ended["readahead-idle-ms"]) >= 10
    assert int(ended["readahead-stalls"]) >= 1


async def ask(running: Cluster, **fields: object) -> list[dict[str, object]]:
    """The JSON frames of a completion, or its one body."""
    body = {"model": "toy", "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **fields}
    url = f"http://{running.router.http_address}/v1/completions"
    async with aiohttp.ClientSession() as http, http.post(url, json=body) as response:
        text = await response.text()
    if not fields.get("stream"):
        return [json.loads(text)]
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


async def test_http_tells_those_who_use_the_extension(running: Cluster) -> None:
    """Beside the counts, and nowhere else: others get what OpenAI's clients expect."""
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    for fields in ({}, streamed):
        plain = await ask(running, **fields)
        assert all("readahead" not in frame for frame in plain)
        *frames, last = await ask(running, readahead={"pace_tok_s": 2}, **fields)
        assert all("readahead" not in frame for frame in frames)
        state = last["readahead"]
        assert isinstance(state, dict)
        assert state["pace_tok_s"] == 2
        assert state["pace_source"] == "explicit"
        assert state["unread_tokens"] in (7, 8)
        assert state["idle_s"] == 0


async def test_http_explains_the_reader(running: Cluster) -> None:
    """The same fields, flat."""
    await collect(running.stub.Generate(paced("r", 2.0)))
    url = f"http://{running.router.http_address}/v1/readahead/requests/r"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        explanation = await response.json()
    assert explanation["pace_tok_s"] == 2.0
    assert explanation["unread_tokens"] > 0
    assert explanation["slack_s"] > 0
    assert explanation["idle_s"] == 0


async def test_metrics_have_the_signal(running: Cluster) -> None:
    """One idle time per request; gauges for the readers of live ones."""
    await collect(running.stub.Generate(paced("r", 2.0)))
    url = f"http://{running.router.http_address}/metrics"
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        text = await response.text()
    for series in (
        'readahead_router_idle_seconds_count{end="finished"}',
        "readahead_router_slack_seconds_count",
        'readahead_router_readers{slack="idle"}',
        "readahead_router_readers_idle",
        "readahead_router_unread_tokens",
    ):
        assert f"\n{series} " in text
