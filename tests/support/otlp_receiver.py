"""An OTLP gRPC receiver on loopback that keeps the spans it gets.

    with otlp_receiver() as receiver:
        configure(TelemetryConfig(otlp_endpoint=receiver.endpoint), …)
        …
        spans = receiver.wait_for(lambda spans: len(spans.named("decode")) == 1)
        root = spans.one("generate")
        assert [span.name for span in spans.children_of(root)] == ["admit", "queue"]

In a coroutine: `await receiver.wait(…)`, which leaves the event loop free.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedSpan:
    """One finished span, ids in hex."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    """Empty: none."""
    kind: str
    """"INTERNAL", "SERVER", "CLIENT", …"""
    service_name: str
    instance_id: str
    attributes: Mapping[str, Any]
    events: Sequence[str]
    """Names of its events."""
    status: str
    """"UNSET", "OK" or "ERROR"."""
    status_message: str
    start_ns: int
    end_ns: int


class Spans(tuple[ReceivedSpan, ...]):
    """What has arrived, in order of arrival."""

    __slots__ = ()

    def named(self, name: str) -> Spans:
        """All spans of that name."""
        return Spans(span for span in self if span.name == name)

    def one(self, name: str) -> ReceivedSpan:
        """The only span of that name."""
        found = self.named(name)
        assert len(found) == 1, f"{len(found)} spans named {name!r} in\n{self.tree()}"
        return found[0]

    def of_trace(self, trace_id: str) -> Spans:
        """All spans of one trace."""
        return Spans(span for span in self if span.trace_id == trace_id)

    def of_service(self, service_name: str) -> Spans:
        """All spans of one kind of process."""
        return Spans(span for span in self if span.service_name == service_name)

    def with_attribute(self, key: str, value: object) -> Spans:
        """All spans that have it."""
        return Spans(span for span in self if span.attributes.get(key) == value)

    def children_of(self, parent: ReceivedSpan) -> Spans:
        """Direct children, by their start."""
        children = (
            span
            for span in self
            if span.parent_span_id == parent.span_id and span.trace_id == parent.trace_id
        )
        return Spans(sorted(children, key=lambda span: span.start_ns))

    def parent_of(self, child: ReceivedSpan) -> ReceivedSpan | None:
        """The parent, if it has arrived."""
        ids = (child.trace_id, child.parent_span_id)
        return next((span for span in self if (span.trace_id, span.span_id) == ids), None)

    def tree(self) -> str:
        """For people: each trace as an indented list."""
        lines: list[str] = []

        def add(span: ReceivedSpan, depth: int) -> None:
            end = "" if span.status == "UNSET" else f" {span.status} {span.status_message}"
            lines.append(f"{'  ' * depth}{span.name} [{span.service_name}]{end}")
            for child in self.children_of(span):
                add(child, depth + 1)

        for span in self:
            if self.parent_of(span) is None:
                lines.append(f"trace {span.trace_id}, parent {span.parent_span_id or '-'}")
                add(span, 1)
        return "\n".join(lines) or "no spans"


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Collects spans. Made by `otlp_receiver()`."""

    def __init__(self) -> None:
        self._spans: list[ReceivedSpan] = []
        self._arrived = threading.Condition()
        self.endpoint = ""
        """host:port, for `telemetry.otlp_endpoint`."""

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: Any
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """The one call of the protocol."""
        received = [
            _span(span, _values(resource.resource.attributes))
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._arrived:
            self._spans += received
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> Spans:
        """What has arrived so far."""
        with self._arrived:
            return Spans(self._spans)

    def clear(self) -> None:
        """Forgets what has arrived."""
        with self._arrived:
            self._spans.clear()

    def wait_for(self, predicate: Callable[[Spans], bool], limit_s: float = 10.0) -> Spans:
        """All spans, once the predicate holds for them.

        Raises:
            TimeoutError: it does not within the limit; shows what has arrived.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: predicate(Spans(self._spans)), limit_s):
                tree = Spans(self._spans).tree()
                raise TimeoutError(f"not the spans hoped for after {limit_s} s:\n{tree}")
            return Spans(self._spans)

    async def wait(self, predicate: Callable[[Spans], bool], limit_s: float = 10.0) -> Spans:
        """`wait_for`, for coroutines."""
        return await asyncio.to_thread(self.wait_for, predicate, limit_s)


@contextmanager
def otlp_receiver() -> Iterator[OtlpReceiver]:
    """A receiver that listens on a free port of loopback."""
    receiver = OtlpReceiver()
    with ThreadPoolExecutor(4, "otlp-receiver") as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]
        receiver.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield receiver
        finally:
            server.stop(grace=None).wait()


def _span(span: trace_pb2.Span, resource: Mapping[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        service_name=str(resource.get("service.name", "")),
        instance_id=str(resource.get("service.instance.id", "")),
        attributes=_values(span.attributes),
        events=[event.name for event in span.events],
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        status_message=span.status.message,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
    )


def _values(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    match value.WhichOneof("value"):
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _values(value.kvlist_value.values)
        case None:
            return None
        case name:
            return getattr(value, name)
