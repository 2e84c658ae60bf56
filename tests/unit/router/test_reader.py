"""The live signal: one clock per request, fed by the frames that its door takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY
from toy_session import FakeLink, toy_call, toy_driver, toy_reader, toy_session, toy_table

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.reading.pace import PaceSource, Scenario
from readahead.core.request import FinishReason, RequestId
from readahead.router import live_signal, metrics
from readahead.router.reader import Readers
from readahead.router.sessions import Finish
from readahead.router.traces import EVENTS_MAX, RequestTrace
from readahead.runtime.clock import monotonic_s
from readahead.runtime.telemetry import attributes, traces

FRAMES = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 6)), max_size=30)


@given(FRAMES, st.floats(0, 3), st.booleans())
def test_idle_at_the_end_is_the_largest_lateness(
    frames: list[tuple[float, int]], tail_s: float, is_complete: bool
) -> None:
    """Of any token; where the answer breaks off, of the one that never came too."""
    reader = toy_reader(pace_tok_s=2.0)
    now, tokens_before, late_s = 0.0, 0, 0.0
    for gap_s, tokens in frames:
        now += gap_s
        if tokens:
            late_s = max(late_s, now - (tokens_before + 1) / 2.0)
        tokens_before += tokens
        reader.deliver(tokens, now=now)
    now += tail_s
    if not is_complete:
        late_s = max(late_s, now - (tokens_before + 1) / 2.0)
    reader.conclude(0, is_complete=is_complete, now=now)
    for later_s in (0.0, 100.0):
        assert reader.idle_s(now + later_s) == pytest.approx(late_s, abs=1e-9)
        assert reader.state(now + later_s).slack_s >= 0


async def test_only_what_is_taken_is_delivered() -> None:
    """Text that waits for its frame is not with the reader; the end sends it out at once."""
    start = monotonic_s()
    session = toy_session(arrived_at=start, gap_s_max=1.0)
    session.push("a b", [1, 2], wait_s=None, now=start)
    assert session.reader.clock.delivered == 0
    await session.next_chunk()
    assert session.reader.clock.delivered == 2
    session.push(" c", [3], wait_s=None, now=start)
    assert session.reader.clock.delivered == 2
    session.finish(FinishReason.STOP, now=start + 0.05)
    assert session.reader.clock.delivered == 3
    chunk = await session.next_chunk()
    assert chunk.finish is not None
    reading = chunk.finish.reading
    assert reading is not None
    assert reading == replace(
        reading, unread_tokens=3, idle_s=0.0, stalls=0, pace_source=PaceSource.DEFAULT
    )
    assert reading.slack_s == pytest.approx(0.75)


async def test_an_answer_in_one_piece_is_delivered_at_its_end() -> None:
    """Its reader has nothing until then, however early the door took the parts."""
    start = monotonic_s()
    session = toy_session(arrived_at=start)
    session.call = replace(session.call, is_streamed=False)
    session.push("a", [1], wait_s=None, now=start)
    await session.next_chunk()
    assert session.reader.clock.delivered == 0
    session.push("b", [2], wait_s=None, now=start)
    session.finish(FinishReason.STOP, now=start + 2.2)
    assert isinstance(session.end, Finish)
    assert session.end.reading is not None
    assert session.end.reading.idle_s == pytest.approx(2.0)
    assert session.reader.clock.delivered == 2


async def test_explain_tells_of_the_reader_and_believes_his_reports() -> None:
    """Live, and after the end, as he reads on."""
    now = 10.0
    async with toy_driver() as driver:
        table = toy_table(driver, now=lambda: now)
        session = await table.open(replace(toy_call("a"), pace_tok_s=2.0))
        session.reader.deliver(8, now=10.5)
        now = 11.6  # he has come to three
        explanation = table.explain(RequestId("a"))
        assert explanation is not None
        assert explanation.reading is not None
        assert explanation.reading.unread_tokens == 5
        assert explanation.reading.pace_source is PaceSource.EXPLICIT
        assert table.report_reading(RequestId("a"), 6)
        session.cancel()
        now = 12.2
        assert table.report_reading(RequestId("a"), 7)
        explanation = table.explain(RequestId("a"))
    assert explanation is not None
    assert explanation.reading is not None
    assert (explanation.tokens_read, explanation.reading.unread_tokens) == (7, 1)


def test_pace_is_said_or_learnt_or_preset() -> None:
    """In this order; what is learnt of a user holds for the request that he reads too."""
    readers = Readers(readers_max=100, default_tok_s=5.0)

    def paces(**about: object) -> tuple[float, PaceSource]:
        call = replace(toy_call(), **about)  # type: ignore[arg-type]
        reader = readers.open(call, trace=RequestTrace(call, max_tokens=8), now=0.0)
        return reader.clock.pace_tok_s, reader.pace_source

    assert paces() == (5.0, PaceSource.DEFAULT)
    assert paces(scenario=Scenario.CHAT) == (6.0, PaceSource.PRESET)
    assert paces(user_id="ann", pace_tok_s=9.0) == (9.0, PaceSource.EXPLICIT)

    call = toy_call("long")
    call = replace(call, user_id="ann")
    reader = readers.open(call, trace=RequestTrace(call, max_tokens=8), now=0.0)
    reader.deliver(1000, now=0.2)
    for second in range(1, 61):
        readers.acknowledge(reader, 10 * second, now=0.1 + second)
    assert reader.pace_source is PaceSource.LEARNT
    assert reader.clock.pace_tok_s == pytest.approx(10.0, rel=0.2)
    pace_tok_s, source = paces(user_id="ann", scenario=Scenario.CHAT)
    assert (pace_tok_s, source) == (reader.clock.pace_tok_s, PaceSource.LEARNT)
    assert paces(user_id="ann", pace_tok_s=3.0) == (3.0, PaceSource.EXPLICIT)
    assert paces(user_id="ben") == (5.0, PaceSource.DEFAULT)


def test_readers_are_bounded() -> None:
    """The oldest go first."""
    readers = Readers(readers_max=2, default_tok_s=5.0)
    for name in ("a", "b", "a", "c"):
        call = toy_call(name)
        readers.open(call, trace=RequestTrace(call, max_tokens=8), now=0.0)
    assert readers.get(RequestId("b")) is None
    assert readers.get(RequestId("a")) is not None


def sampled(name: str, **labels: str) -> float:
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None
    return value


async def test_gauges_count_every_reader_once() -> None:
    """Those who wait, those with text, and the text."""
    readers = [toy_reader(pace_tok_s=10.0) for _ in range(live_signal.READERS_AT_ONCE + 3)]
    for reader in readers[1:]:
        reader.deliver(11, now=0.1)
    readers[2].deliver(1000, now=0.1)
    before = sampled("readahead_router_slack_seconds_count")
    await live_signal.sample(readers, now=lambda: 0.5)
    assert sampled("readahead_router_readers_idle") == 1
    by_slack = [sampled("readahead_router_readers", slack=s) for s in metrics.SLACK_LABELS]
    assert by_slack == [1, 0, len(readers) - 2, 0, 0, 1]
    assert sampled("readahead_router_slack_seconds_count") == before + len(readers)
    unread = sum(reader.clock.unread_tokens(0.5) for reader in readers)
    assert sampled("readahead_router_unread_tokens") == unread
    await live_signal.sample([], now=lambda: 0.5)
    assert sampled("readahead_router_unread_tokens") == 0
    assert sampled("readahead_router_readers", slack="idle") == 0


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Where the spans of this test end up."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def generate_span(spans: InMemorySpanExporter) -> ReadableSpan:
    return next(span for span in spans.get_finished_spans() if span.name == "generate")


async def test_waits_are_events_of_the_span(spans: InMemorySpanExporter) -> None:
    """When he went idle and when he got text again; the sum is an attribute."""
    now = 10.0
    async with toy_driver() as driver:
        driver.join(FakeLink().as_link())
        table = toy_table(driver, now=lambda: now)
        session = await table.open(replace(toy_call(), pace_tok_s=2.0))
        session.reader.deliver(1, now=11.0)  # due at 10.5
        session.reader.deliver(1, now=11.2)  # due at 11.5
        session.reader.deliver(1, now=14.0)  # due at 12.0
        session.fail(ReadaheadError(Reason.STREAM_BROKEN, "gone"), now=15.5)  # due at 14.5
        session.trace.end(
            ReadaheadError(Reason.STREAM_BROKEN, "gone"),
            output_tokens=3,
            reading=session.reader.state(15.5),
        )
    span = generate_span(spans)
    names = [event.name for event in span.events]
    assert names == ["went_idle", "resumed", "went_idle", "resumed", "went_idle"]
    waited_s = [(b.timestamp - a.timestamp) / 1e9 for a, b in _pairs(span)]
    assert waited_s == pytest.approx([0.5, 2.0], abs=1e-6)
    assert span.attributes is not None
    assert span.attributes[attributes.IDLE_S] == pytest.approx(3.5)
    assert span.attributes[attributes.STALLS] == 3
    assert span.attributes[attributes.PACE_SOURCE] == "explicit"


def _pairs(span: ReadableSpan) -> list[tuple[Event, Event]]:
    events = list(span.events)
    return list(zip(events[:-1:2], events[1::2], strict=True))


async def test_events_are_bounded_and_counted_beyond(spans: InMemorySpanExporter) -> None:
    """A reader who stalls a thousand times makes no span of a thousand events."""
    call = toy_call()
    trace = RequestTrace(call, max_tokens=8)
    reader = Readers(readers_max=1, default_tok_s=5.0).open(call, trace=trace, now=0.0)
    for second in range(1, 1001):
        reader.deliver(1, now=float(second))
    reader.conclude(0, is_complete=True, now=1000.0)
    trace.end(
        ReadaheadError(Reason.CANCELLED, ""), output_tokens=1000, reading=reader.state(1000.0)
    )
    span = generate_span(spans)
    assert len(span.events) == EVENTS_MAX
    assert span.attributes is not None
    assert span.attributes[attributes.STALLS] == 1000


async def test_a_sample_lets_others_on_the_loop() -> None:
    """Whatever the number of readers."""
    readers = [toy_reader() for _ in range(3 * live_signal.READERS_AT_ONCE)]
    turns = 0
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(live_signal.sample(readers, now=lambda: 0.0))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
    assert turns >= 3
