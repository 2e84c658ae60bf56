"""One trace per request across the cluster's processes, as a real OTLP receiver gets it."""

from __future__ import annotations

import itertools
import json
import urllib.request
import uuid
from dataclasses import dataclass

import pytest
from otlp_receiver import OtlpReceiver, ReceivedSpan, Spans
from up_process import UpProcess
from worker_inspection import wait_all_joined

from readahead.client import Client
from readahead.runtime.telemetry import attributes

CALLER_SPAN = "00f067aa0ba902b7"
MAX_TOKENS = 6
ARRIVE_S_MAX = 15.0
"""Each process exports twice a second, when it gets to it."""
STAGES = ["admit", "queue", "prefill", "handover", "decode"]

READING = [
    "readahead.pace_tok_s",
    "readahead.pace_source",
    "readahead.unread_tokens",
    "readahead.idle_s",
    "readahead.stalls",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request that has been answered."""

    request_id: str
    trace_id: str
    """The caller's."""


def _headers(asked: Asked) -> dict[str, str]:
    return {"traceparent": f"00-{asked.trace_id}-{CALLER_SPAN}-01"}


def _ask_grpc(cluster: UpProcess, asked: Asked, prompt: list[int]) -> None:
    with Client(cluster.grpc) as client:
        client.generate(
            token_ids=prompt,
            model=cluster.model,
            request_id=asked.request_id,
            max_tokens=MAX_TOKENS,
            ignore_eos=True,
            headers=_headers(asked),
        ).collect()


def _ask_http(cluster: UpProcess, asked: Asked, prompt: list[int]) -> None:
    body = {"model": cluster.model, "prompt": prompt, "max_tokens": MAX_TOKENS, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://{cluster.http}/v1/completions",
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "X-Request-Id": asked.request_id,
            **_headers(asked),
        },
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200


def _trace(
    cluster: UpProcess, traces: OtlpReceiver, *, door: str, prompt_tokens: int, spans: int
) -> tuple[Asked, Spans]:
    """All spans of one request, sent under the trace of a caller of its own."""
    wait_all_joined(cluster)
    asked = Asked(request_id=f"traced-{uuid.uuid4().hex}", trace_id=uuid.uuid4().hex)
    prompt = [7 + index % 2000 for index in range(prompt_tokens)]
    (_ask_grpc if door == "grpc" else _ask_http)(cluster, asked, prompt)
    received = traces.wait_for(
        lambda found: len(found.of_trace(asked.trace_id)) >= spans, ARRIVE_S_MAX
    )
    ours = received.of_trace(asked.trace_id)
    assert received.with_attribute(attributes.REQUEST_ID, asked.request_id) == (
        ours.with_attribute(attributes.REQUEST_ID, asked.request_id)
    ), "spans of the request in another trace"
    return asked, ours


def _process(span: ReceivedSpan) -> tuple[str, str]:
    """Kind and name of the process that made a span, the latter without the router's own."""
    is_worker = span.service_name != attributes.SERVICE_ROUTER
    return span.service_name, span.instance_id if is_worker else ""


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_one_request_is_one_trace_across_three_processes(
    cluster: UpProcess, traces: OtlpReceiver, door: str
) -> None:
    """Router, prefill worker and decode worker, under the caller's span, stage after stage."""
    asked, spans = _trace(cluster, traces, door=door, prompt_tokens=100, spans=8)
    assert len(spans) == 8, spans.tree()

    generate = spans.one("generate")
    assert (generate.parent_span_id, generate.kind) == (CALLER_SPAN, "SERVER")
    assert generate.attributes[attributes.REQUEST_ID] == asked.request_id
    stages = spans.children_of(generate)
    assert [span.name for span in stages] == STAGES, spans.tree()
    assert {_process(span) for span in (generate, *stages)} == {(attributes.SERVICE_ROUTER, "")}
    for before, after in itertools.pairwise(stages):
        assert before.end_ns <= after.start_ns, "stages follow each other"
    assert generate.start_ns <= stages[0].start_ns
    assert stages[-1].end_ns <= generate.end_ns

    for stage, service in (
        ("prefill", attributes.SERVICE_PREFILL),
        ("decode", attributes.SERVICE_DECODE),
    ):
        leg, work = spans.one(stage), spans.one(f"worker.{stage}")
        assert spans.children_of(leg) == (work,)
        worker_id = leg.attributes[attributes.WORKER_ID]
        assert _process(work) == (service, worker_id)
        assert worker_id in {worker.name for worker in cluster.workers if worker.role == stage}
    assert {span.status for span in spans} == {"UNSET"}


@pytest.mark.parametrize("door", ["grpc", "http"])
def test_spans_carry_the_gen_ai_attributes(
    cluster: UpProcess, traces: OtlpReceiver, door: str
) -> None:
    """Model, limits and counts are those of the request and of its legs."""
    asked, spans = _trace(cluster, traces, door=door, prompt_tokens=77, spans=8)
    generate = spans.one("generate")
    rest = dict(generate.attributes)
    reading = {name: rest.pop(name) for name in READING}
    assert rest == {
        "gen_ai.request.model": cluster.model,
        "gen_ai.request.max_tokens": MAX_TOKENS,
        "gen_ai.usage.input_tokens": 77,
        "gen_ai.usage.output_tokens": MAX_TOKENS,
        "gen_ai.response.finish_reasons": ["length"],
        "readahead.request_id": asked.request_id,
    }
    assert (reading["readahead.pace_tok_s"], reading["readahead.pace_source"]) == (5.0, "default")
    assert 0 <= reading["readahead.unread_tokens"] <= MAX_TOKENS
    assert (reading["readahead.idle_s"] > 0) == (reading["readahead.stalls"] > 0)
    for name, output_tokens in (("worker.prefill", 0), ("worker.decode", MAX_TOKENS)):
        found = spans.one(name).attributes
        assert found["gen_ai.request.model"] == cluster.model
        assert found["gen_ai.usage.input_tokens"] == 77
        assert found["gen_ai.usage.output_tokens"] == output_tokens
        assert found["readahead.request_id"] == asked.request_id
        assert found["readahead.attempt"] == 1


def test_a_short_prompt_has_no_prefill_and_no_handover(
    cluster: UpProcess, traces: OtlpReceiver
) -> None:
    """It runs on one decode worker, and the trace says so."""
    _, spans = _trace(cluster, traces, door="grpc", prompt_tokens=5, spans=5)
    stages = spans.children_of(spans.one("generate"))
    assert [span.name for span in stages] == ["admit", "queue", "decode"], spans.tree()
    assert spans.one("worker.decode").parent_span_id == spans.one("decode").span_id
    assert len(spans) == 5
