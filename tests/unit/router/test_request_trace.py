"""RequestTrace: one span per stage under one root, each ended once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from toy_session import FakeLink, settle, toy_call, toy_driver, toy_table

from readahead.core.cluster import Role
from readahead.router.relay import Relay
from readahead.router.session_table import SessionTable
from readahead.runtime.telemetry import traces
from readahead.v1 import sampling_pb2
from readahead.v1 import worker_service_pb2 as pb


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Where the spans of this test end up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def names(spans: InMemorySpanExporter) -> list[str]:
    """Ended spans, oldest first."""
    return [span.name for span in spans.get_finished_spans()]


async def test_stages_are_children_of_the_request(spans: InMemorySpanExporter) -> None:
    """Through both pools: five stages, in order, and the workers are told their parents."""
    async with toy_driver() as driver:
        prefill, decode = FakeLink("p0", Role.PREFILL), FakeLink("d0")
        driver.join(prefill.as_link())
        driver.join(decode.as_link())
        relay = Relay(driver)
        await SessionTable.open(toy_table(driver), toy_call(prompt_tokens=100))
        await settle()
        end = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_LENGTH, handover=b"kv")
        news = pb.LegDelta(request_id="r", attempt=1, end=end)
        relay.on_step(prefill.as_link(), pb.StepsResponse(deltas=[news]))
        await settle()
        end = pb.LegEnd(reason=sampling_pb2.FINISH_REASON_STOP)
        news = pb.LegDelta(request_id="r", attempt=1, token_ids=[1], text="a", end=end)
        relay.on_step(decode.as_link(), pb.StepsResponse(deltas=[news]))
    assert names(spans) == ["admit", "queue", "prefill", "handover", "decode", "generate"]
    by_name = {span.name: span for span in spans.get_finished_spans()}
    root = by_name["generate"].context
    assert root is not None
    for name in ("admit", "queue", "prefill", "handover", "decode"):
        parent = by_name[name].parent
        assert parent is not None
        assert parent.span_id == root.span_id
    for name, link in (("prefill", prefill), ("decode", decode)):
        context = by_name[name].context
        assert context is not None
        assert f"{context.span_id:016x}" in link.headers[0]["traceparent"]
    assert by_name["generate"].status.status_code is StatusCode.UNSET


async def test_failure_marks_the_stage_and_the_request(spans: InMemorySpanExporter) -> None:
    """A cancel while queued ends both spans as errors, once."""
    async with toy_driver() as driver:
        session = await toy_table(driver).open(toy_call())
        session.cancel()
        session.cancel()
    assert names(spans) == ["admit", "queue", "generate"]
    _, queue, generate = spans.get_finished_spans()
    assert queue.status.status_code is StatusCode.ERROR
    assert generate.status.status_code is StatusCode.ERROR


async def test_the_callers_trace_passes_through_when_traces_are_off() -> None:
    """The worker sees the caller's span as its parent."""
    from dataclasses import replace

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with toy_driver() as driver:
        link = FakeLink()
        driver.join(link.as_link())
        call = replace(toy_call(), trace_headers={"traceparent": parent})
        session = await toy_table(driver).open(call)
        await settle()
        assert link.headers == [{"traceparent": parent}]
        session.cancel()
