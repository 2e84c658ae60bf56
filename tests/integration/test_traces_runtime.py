"""Spans leave the process over OTLP, and trace context crosses processes as W3C headers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.trace import SpanKind, Status, StatusCode
from otlp_receiver import OtlpReceiver, otlp_receiver

from readahead.runtime.config import TelemetryConfig
from readahead.runtime.telemetry import attributes, traces

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver() as running:
        yield running
        traces.shutdown()


def _configure(receiver: OtlpReceiver) -> None:
    traces.configure(
        TelemetryConfig(otlp_endpoint=receiver.endpoint),
        service_name=attributes.SERVICE_ROUTER,
        instance_id="router-1",
    )


def test_spans_arrive_with_parent_resource_attributes_and_status(receiver: OtlpReceiver) -> None:
    """A span that was ended is at the receiver, with all that was said about it."""
    _configure(receiver)
    context = traces.context_from({"traceparent": TRACEPARENT})
    tracer = traces.tracer()
    root = tracer.start_span(attributes.SPAN_GENERATE, context=context, kind=SpanKind.SERVER)
    inside = traces.context_from(traces.headers_from(root))
    child = tracer.start_span(
        attributes.SPAN_PREFILL,
        context=inside,
        attributes={attributes.INPUT_TOKENS: 7, attributes.FINISH_REASONS: ["stop"]},
    )
    child.set_status(Status(StatusCode.ERROR, "lost"))
    child.end()
    root.end()

    spans = receiver.wait_for(lambda spans: len(spans) == 2)

    generate, prefill = spans.one("generate"), spans.one("prefill")
    assert generate.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert generate.parent_span_id == "b7ad6b7169203331"
    assert generate.kind == "SERVER"
    assert (generate.service_name, generate.instance_id) == ("readahead-router", "router-1")
    assert generate.status == "UNSET"
    assert spans.children_of(generate) == (prefill,)
    assert prefill.attributes == {
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.response.finish_reasons": ["stop"],
    }
    assert (prefill.status, prefill.status_message) == ("ERROR", "lost")


def test_shutdown_sends_what_waits(receiver: OtlpReceiver) -> None:
    """No span that was ended before the shutdown is missing after it."""
    _configure(receiver)
    for _ in range(1000):
        traces.tracer().start_span(attributes.SPAN_DECODE).end()
    traces.shutdown()
    assert len(receiver.spans.named("decode")) == 1000


def test_an_unsampled_caller_is_not_traced(receiver: OtlpReceiver) -> None:
    """The caller's decision not to sample holds here too, and is passed on."""
    _configure(receiver)
    unsampled = TRACEPARENT[:-2] + "00"
    context = traces.context_from({"traceparent": unsampled})
    span = traces.tracer().start_span(attributes.SPAN_GENERATE, context=context)
    assert traces.headers_from(span)["traceparent"].endswith("-00")
    span.end()
    traces.shutdown()
    assert receiver.spans == ()


def test_shutdown_ends_though_the_receiver_is_gone(receiver: OtlpReceiver) -> None:
    """A receiver that does not answer delays the end by no more than the stated limits."""
    telemetry = TelemetryConfig(otlp_endpoint="127.0.0.1:1")
    traces.configure(telemetry, service_name="readahead-router", instance_id="router-1")
    traces.tracer().start_span(attributes.SPAN_DECODE).end()
    traces.shutdown()


def test_without_an_endpoint_the_sdk_is_never_imported() -> None:
    """Traces that are off cost neither the SDK's packages nor their memory."""
    program = (
        "import sys\n"
        "from readahead.runtime.config import TelemetryConfig\n"
        "from readahead.runtime.telemetry import traces\n"
        "traces.configure(TelemetryConfig(), service_name='readahead-router', instance_id='r')\n"
        "traces.tracer().start_span('generate').end()\n"
        "traces.shutdown()\n"
        "names = [name for name in sys.modules if name.startswith('opentelemetry.')]\n"
        "assert not [n for n in names if 'sdk' in n or 'exporter' in n or 'proto' in n], names\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
