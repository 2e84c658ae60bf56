"""Traces: OpenTelemetry's SDK where an endpoint is set, its no-op API everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NoOpTracer, Span, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from readahead.runtime.config import TelemetryConfig

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

QUEUE_SPANS_MAX = 8192
"""Spans that wait for export: some 1,300 requests of 6 spans. More are dropped."""
EXPORT_S_MAX = 5.0
"""Longest wait for the receiver, per batch and at shutdown."""

_W3C = TraceContextTextMapPropagator()
_OFF = NoOpTracer()

_provider: TracerProvider | None = None
_tracer: Tracer = _OFF


def configure(telemetry: TelemetryConfig, *, service_name: str, instance_id: str) -> None:
    """Starts exporting this process's spans, if an endpoint is set.

    Opens a gRPC channel and starts a thread: to be called after the last fork.
    """
    global _provider, _tracer
    if not telemetry.otlp_endpoint:
        return
    # Imported here so that a process without traces needs neither the packages nor their memory.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    shutdown()
    names = {"service.name": service_name, "service.instance.id": instance_id}
    provider = TracerProvider(resource=Resource.create(names), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        endpoint=telemetry.otlp_endpoint,
        insecure=telemetry.otlp_is_insecure,
        timeout=EXPORT_S_MAX,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS_MAX,
            schedule_delay_millis=500,
            max_export_batch_size=512,
        )
    )
    _provider = provider
    _tracer = provider.get_tracer("readahead")


def shutdown() -> None:
    """Sends what waits and stops. Blocks, for a few seconds where the receiver is gone."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, _OFF
    if provider is not None:
        provider.force_flush(round(EXPORT_S_MAX * 1000))
        provider.shutdown()


def tracer() -> Tracer:
    """Makes spans; no-op ones, which still pass the caller's context on, where traces are off."""
    return _tracer


def context_from(headers: Mapping[str, str]) -> Context:
    """The caller's trace context, from W3C headers; empty where there is none."""
    return _W3C.extract({name.lower(): value for name, value in headers.items()}, Context())


def headers_from(span: Span) -> dict[str, str]:
    """W3C headers that make the receiver's spans children of this one."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(span, Context()))
    return headers
