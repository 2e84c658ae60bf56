"""What a client gets through a whole cluster."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import grpc
import pytest
from cluster_in_process import (
    CONTEXT_TOKENS,
    Answer,
    cluster,
    collect,
    generate_request,
    router_config,
    toy_engine,
    toy_output,
    wait_stage,
)
from fake_engine import FakeEngine, silent
from worker_server import wait_until

from readahead.core.cluster import Role
from readahead.core.config import AdmissionConfig
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Command
from readahead.core.request import RequestId, Stage
from readahead.core.router_state import RouterState
from readahead.router.config import DoorsConfig
from readahead.runtime.rpc.errors import error_from_rpc
from readahead.services.engine.engine import Engine, LegOutput
from readahead.v1 import inference_service_pb2 as pb

SHORT = [1, 2, 3]


def pools(decodes: int = 1, **limits: int) -> dict[str, tuple[Role, Engine]]:
    """Emulated engines: a prefill worker and some decode workers."""
    engines: dict[str, tuple[Role, Engine]] = {"p0": (Role.PREFILL, toy_engine(Role.PREFILL))}
    for index in range(decodes):
        engines[f"d{index}"] = (Role.DECODE, toy_engine(Role.DECODE, **limits))
    return engines


def refusal(answer: Answer) -> ReadaheadError:
    """The error that a call ended with."""
    assert answer.error is not None
    return error_from_rpc(answer.error)


@pytest.mark.parametrize(("prompt_tokens", "transfers"), [(100, 1), (3, 0)])
async def test_answer_is_what_the_engine_makes_of_the_prompt(
    prompt_tokens: int, transfers: int
) -> None:
    """A prompt above the threshold goes through both pools, a shorter one through one."""
    prompt = list(range(prompt_tokens))
    async with cluster(pools()) as running:
        answer = await collect(running.stub.Generate(generate_request(prompt, max_tokens=20)))
        await running.wait_free()
        states = await running.states()
    assert answer.error is None
    assert (answer.token_ids, answer.text) == toy_output(prompt, 20)
    assert answer.started is not None
    assert answer.started.prompt_tokens == prompt_tokens
    (finished,) = answer.finished
    assert finished.output_tokens == 20
    assert states["d0"].transfers_total == transfers
    split = finished.first_token
    assert split.HasField("total")
    assert split.HasField("transfer") == split.HasField("prefill") == bool(transfers)
    parts = (split.queue, split.prefill, split.transfer, split.first_decode)
    assert sum(part.ToNanoseconds() for part in parts) <= split.total.ToNanoseconds()


async def test_every_stream_ends_once_whoever_leaves() -> None:
    """64 streams at once, a third cancelled at random; the others are whole, nothing is left."""
    draw = random.Random("router-streams")
    prompts = [[draw.randrange(1000) for _ in range(draw.randint(1, 200))] for _ in range(64)]

    async def run(index: int, prompt: list[int]) -> Answer:
        call = running.stub.Generate(generate_request(prompt, max_tokens=40))
        if index % 3:
            return await collect(call)
        for _ in range(draw.randint(1, 20)):
            await call.read()
        call.cancel()
        return Answer()

    async with cluster(pools(2, requests_max=16)) as running:
        async with asyncio.TaskGroup() as tasks:
            answers = [tasks.create_task(run(*item)) for item in enumerate(prompts)]
        await running.wait_free(limit_s=20)
    for index, (prompt, task) in enumerate(zip(prompts, answers, strict=True)):
        answer = task.result()
        if index % 3:
            assert answer.error is None
            assert (answer.token_ids, answer.text) == toy_output(prompt, 40)
            assert len(answer.finished) == 1


async def test_recorded_events_replay_to_the_same_commands() -> None:
    """The ring of a live router, fed to a fresh core, gives what the live core commanded."""
    given: list[Command] = []
    async with cluster(pools(2)) as running:
        driver = running.router.driver
        perform = driver._perform

        def record(command: Command) -> None:
            given.append(command)
            perform(command)

        driver._perform = record  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            for index in range(12):
                call = running.stub.Generate(generate_request([index] * (index * 7 + 1)))
                tasks.create_task(collect(call))
        await running.wait_free()
        ring = list(driver.ring)
    replayed = RouterState(router_config().core)
    got = [command for now, event in ring for command in replayed.handle(event, now=now)]
    assert given == got
    assert len(given) >= 24


async def test_client_that_never_reads_is_given_up() -> None:
    """Its request ends on the workers while its connection still stands."""
    wordy = LegOutput(token_ids=[1], text="x" * 200_000, wait_s=0.0, first_token_s=0.0)
    engine = FakeEngine(silent, model="toy")
    config = router_config(doors=DoorsConfig(http_port=0, grpc_port=0, client_stall_s_max=0.3))

    def speak_until_gone() -> bool:
        for key in engine.legs:
            engine.emit(key, wordy)
        return not engine.legs and not running.router.driver.sessions

    async with cluster({"d0": (Role.DECODE, engine)}, config=config) as running:
        call = running.stub.Generate(generate_request(SHORT, request_id="r"))
        await wait_until(lambda: bool(engine.legs))
        await wait_until(speak_until_gone)
        explanation = running.router.sessions.explain(RequestId("r"))
        assert explanation is not None
        assert explanation.stage is Stage.CANCELLED
        call.cancel()


@pytest.mark.parametrize(
    ("request_", "reason", "parameter"),
    [
        (generate_request([]), Reason.INVALID_REQUEST, "token_ids"),
        (pb.GenerateRequest(), Reason.INVALID_REQUEST, "prompt"),
        (pb.GenerateRequest(prompt=""), Reason.INVALID_REQUEST, "prompt"),
        (pb.GenerateRequest(chat=pb.Chat()), Reason.INVALID_REQUEST, "chat.messages"),
        (generate_request([10_000]), Reason.INVALID_REQUEST, "token_ids"),
        (generate_request(SHORT, request_id="a b"), Reason.INVALID_REQUEST, "request_id"),
        (generate_request(SHORT, max_tokens=0), Reason.INVALID_REQUEST, "sampling.max_tokens"),
        (generate_request(SHORT, model="gpt"), Reason.MODEL_NOT_FOUND, "model"),
        (generate_request([1] * CONTEXT_TOKENS), Reason.CONTEXT_TOO_LONG, "prompt"),
        (generate_request(SHORT, max_tokens=CONTEXT_TOKENS), Reason.CONTEXT_TOO_LONG, "max_tokens"),
    ],
)
async def test_bad_requests_are_refused_with_a_reason(
    request_: pb.GenerateRequest, reason: Reason, parameter: str
) -> None:
    """Each names what is wrong with which field, and none is admitted."""
    async with cluster({"d0": (Role.DECODE, FakeEngine(model="toy"))}) as running:
        error = refusal(await collect(running.stub.Generate(request_)))
        assert (error.reason, error.parameter) == (reason, parameter)
        assert not running.router.driver.sessions


async def test_limits_and_duplicates_are_refused() -> None:
    """`requests_max` and a full queue are OVERLOADED with a hint; a live id is taken once."""
    engine = FakeEngine(silent, model="toy", requests_max=1)
    config = router_config(
        doors=DoorsConfig(http_port=0, grpc_port=0, requests_max=3),
        admission=AdmissionConfig(queue_requests_max=1),
    )
    async with cluster({"d0": (Role.DECODE, engine)}, config=config) as running:
        calls = []
        for name in ("runs", "waits"):
            calls.append(running.stub.Generate(generate_request(SHORT, request_id=name)))
            await wait_until(lambda name=name: name in running.router.driver.sessions)  # type: ignore[misc]
        twin = refusal(
            await collect(running.stub.Generate(generate_request(SHORT, request_id="runs")))
        )
        assert (twin.reason, twin.parameter) == (Reason.INVALID_REQUEST, "request_id")
        queue = refusal(await collect(running.stub.Generate(generate_request(SHORT))))
        assert queue.reason is Reason.OVERLOADED
        assert queue.retry_after_s is not None
        for call in calls:
            call.cancel()


async def test_questions_about_a_request() -> None:
    """Explain and ReportReading know live and ended requests; Cancel knows live ones."""
    async with cluster(pools()) as running:
        stub = running.stub
        await collect(stub.Generate(generate_request([1] * 50, request_id="r")))
        await stub.ReportReading(pb.ReportReadingRequest(request_id="r", tokens_read=3))
        explanation = await stub.Explain(pb.ExplainRequest(request_id="r"))
        models = await stub.ListModels(pb.ListModelsRequest())
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.Cancel(pb.CancelRequest(request_id="r"))
    assert [decision.kind for decision in explanation.decisions] == [
        "admit",
        "prefill",
        "handover",
        "decode",
        "finish",
    ]
    assert (explanation.stage, explanation.tokens_delivered) == ("finished", 8)
    assert [model.name for model in models.models] == ["toy"]
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_http_door_serves_the_same_sessions() -> None:
    """A streamed completion over HTTP has the engine's text, and /health and /metrics answer."""
    async with cluster(pools()) as running:
        health = await http(running.router.http_address, "GET", "/health")
        body = {"model": "toy", "prompt": [1] * 50, "max_tokens": 8, "stream": True}
        answer = await http(running.router.http_address, "POST", "/v1/completions", body)
        metrics = await http(running.router.http_address, "GET", "/metrics")
        await running.wait_free()
    assert health.startswith("HTTP/1.1 200")
    frames = [line[6:] for line in answer.splitlines() if line.startswith("data: {")]
    texts = [choice["text"] for frame in frames for choice in json.loads(frame)["choices"]]
    assert "".join(texts) == toy_output([1] * 50, 8)[1]
    assert 'readahead_router_requests_total{door="http",outcome="length"}' in metrics


async def test_health_is_503_without_workers() -> None:
    """Nothing can be served, and whoever asks is told."""
    config = replace(router_config(), worker_silence_s_max=0.5)
    async with cluster({}, config=config) as running:
        health = await http(running.router.http_address, "GET", "/health")
    assert health.startswith("HTTP/1.1 503")


async def http(address: str, method: str, path: str, body: Any = None) -> str:
    """One exchange over a connection of its own; the whole answer as text."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = json.dumps(body).encode() if body is not None else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


async def test_a_stage_can_be_waited_for() -> None:
    """A request that no worker takes is explained as queued."""
    async with cluster({}) as running:
        call = running.stub.Generate(generate_request(SHORT, request_id="r"))
        await wait_stage(running, "r", Stage.QUEUED)
        call.cancel()
        await wait_until(lambda: not running.router.driver.sessions)
