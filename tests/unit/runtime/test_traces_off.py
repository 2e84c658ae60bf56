"""With traces off, context still goes from caller to callee."""

from __future__ import annotations

from opentelemetry import trace

from readahead.runtime.config import TelemetryConfig
from readahead.runtime.telemetry import attributes, traces

HEADERS = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
}


def test_the_callers_context_is_passed_on() -> None:
    """A process without traces leaves no hole in somebody else's."""
    traces.configure(TelemetryConfig(), service_name=attributes.SERVICE_ROUTER, instance_id="r")
    context = traces.context_from({name.title(): value for name, value in HEADERS.items()})
    span = traces.tracer().start_span(attributes.SPAN_GENERATE, context=context)
    assert not span.is_recording()
    assert traces.headers_from(span) == HEADERS


def test_without_a_caller_there_is_nothing_to_pass_on() -> None:
    """No trace is made up; damaged headers count as none."""
    for headers in ({}, {"traceparent": "garbage"}, {"traceparent": "00-0-0-01"}):
        span = traces.tracer().start_span("generate", context=traces.context_from(headers))
        assert traces.headers_from(span) == {}


def test_a_span_around_the_call_is_not_taken_for_the_caller() -> None:
    """Only what the headers say counts, whatever else this task is doing."""
    outside = trace.NonRecordingSpan(
        trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
    )
    with trace.use_span(outside):
        context = traces.context_from({})
    assert not trace.get_current_span(context).get_span_context().is_valid


def test_names_are_distinct() -> None:
    """No two names of spans or attributes are the same."""
    names = [value for name, value in vars(attributes).items() if name.isupper()]
    assert len(names) == len(set(names))
    assert all(isinstance(name, str) and name for name in names)
