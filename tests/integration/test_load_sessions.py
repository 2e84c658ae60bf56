"""Sessions with readers against scripted servers on loopback, through either door."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from fake_inference import (
    FakeInference,
    FakeOpenAi,
    Gate,
    HttpReply,
    delta,
    finished,
    serving,
    serving_http,
    sse,
    started,
)
from worker_server import wait_until

from readahead.loadgen.load_target import sender_for
from readahead.loadgen.records import Outcome, Record
from readahead.loadgen.senders import Sender, SendOptions
from readahead.loadgen.session_run import Hooks, RunLimits, SessionRun
from readahead.loadgen.statistics import summarise
from readahead.workload.reader import Reader
from readahead.workload.session import Pause, Segment, Session, Turn
from readahead.workload.slo import SloClass

FAST = Reader(pace_tok_s=500.0)
OPTIONS = SendOptions(model="fake", timeout_s=10.0, ignore_eos=False)
OURS = HttpReply(
    pieces=[b'{"data":[{"id":"fake","readahead":{"engine":"emulated"}}]}'],
    content_type="application/json",
)


def turn(name: str, **planned: Any) -> Turn:
    return Turn(
        segments=(Segment(name, 2),), output_tokens=planned.pop("output_tokens", 2), **planned
    )


def session(*turns: Turn, reader: Reader = FAST, index: int = 0) -> Session:
    return Session(
        session_id=f"s{index}",
        arrival_s=0.02 * index,
        scenario="chatbot",
        tenant="acme",
        user=f"u{index}",
        reader=reader,
        turns=turns,
    )


def run_of(sender: Sender, **more: Any) -> SessionRun:
    limits = RunLimits(requests_max=more.pop("requests_max", 100))
    texts = more.pop("texts", lambda segment: f" {segment.key}")
    return SessionRun(sender, OPTIONS, limits, texts=texts, run_id="t", **more)


async def play(
    target: str, sessions: Sequence[Session], *, is_chat: bool = True, **more: Any
) -> SessionRun:
    """Offers the sessions in an open loop."""
    sender = sender_for(target, is_chat=is_chat)
    async with sender:
        await sender.models()
        run = run_of(sender, **more)
        await run.offer(sessions)
    return run


def by_turn(run: SessionRun) -> list[Record]:
    return sorted(run.records, key=lambda record: record.request_id)


def chat_chunk(text: str, tokens: int | None = None) -> str:
    event: dict[str, Any] = {"choices": [{"index": 0, "delta": {"content": text}}]}
    if tokens is not None:
        event["usage"] = {"prompt_tokens": 5, "completion_tokens": tokens}
    return json.dumps(event)


def chat_reply(*texts: str, **more: Any) -> HttpReply:
    frames = [chat_chunk(text, index + 1) for index, text in enumerate(texts)]
    return HttpReply(pieces=[sse(*frames, "[DONE]")], **more)


CONVERSATION = session(
    turn("hello"),
    turn("more", carries_context=True, pause_s=0.01),
    turn(
        "fresh",
        pause_s=0.01,
        pause_from=Pause.ENDED,
        slo=SloClass(name="x", ttft_slowdown=3, tpot_s=0.1),
    ),
)


async def test_a_conversation_over_http() -> None:
    """Later turns carry the true answers on, and come after the reader and his pause."""
    fake = FakeOpenAi(lambda _path, _body: chat_reply("one", "two"))
    with serving_http(fake) as url:
        run = await play(url, [CONVERSATION])
    first, second, third = by_turn(run)
    messages = [json.loads(body)["messages"] for _, body in fake.posts]
    assert messages[0] == [{"role": "user", "content": " hello"}]
    assert messages[1] == [
        {"role": "user", "content": " hello"},
        {"role": "assistant", "content": "onetwo"},
        {"role": "user", "content": " more"},
    ]
    assert messages[2] == [{"role": "user", "content": " fresh"}]
    assert first.reading is not None
    assert first.reading.finished_s is not None
    assert second.arrival_s == pytest.approx(first.reading.finished_s + 0.01)
    assert third.arrival_s == pytest.approx(second.ended_s + 0.01)
    assert second.sent_s >= second.arrival_s
    fields = json.loads(third.to_json())
    assert (fields["session_id"], fields["turn"], fields["tenant"]) == ("s0", 2, "acme")
    assert fields["slo_class"] == {"name": "x", "ttft_slowdown": 3, "tpot_s": 0.1}
    assert (fields["pace_tok_s"], fields["is_pace_told"]) == (500.0, False)
    summary = summarise(run.records, rate_req_s=0.01, dropped=0, is_interrupted=False)
    assert summary.lateness_s is not None
    assert summary.turn_lateness_s is not None
    assert (summary.lateness_s.count, summary.turn_lateness_s.count) == (1, 2)


async def test_a_completion_carries_text_or_ids_on() -> None:
    """Over gRPC, prompts of ids go on with the answer's own ids."""
    service = FakeInference([started(), delta("one", 11, 12), finished(2)])
    with serving(service) as address:
        await play(f"grpc://{address}", [CONVERSATION], is_chat=False)
        await play(f"grpc://{address}", [CONVERSATION], is_chat=False, texts=lambda segment: [1, 2])
    assert [request.prompt for request in service.requests[:3]] == [
        " hello",
        " helloone more",
        " fresh",
    ]
    ids = [list(request.token_ids.ids) for request in service.requests[3:]]
    assert ids == [[1, 2], [1, 2, 11, 12, 1, 2], [1, 2]]
    assert service.requests[0].reading.pace_tok_s == 500.0
    assert service.requests[0].reading.user_id == "u0"


async def test_an_impatient_reader_leaves_over_http() -> None:
    """The connection is closed, the record says why, and his next turn never comes."""
    fake = FakeOpenAi(lambda _path, _body: HttpReply(pieces=[sse(chat_chunk("a", 1))], holds=True))
    reader = Reader(pace_tok_s=50.0, patience_s=0.05)
    with serving_http(fake) as url:
        run = await play(url, [session(turn("a"), turn("b"), reader=reader)])
        assert await asyncio.to_thread(fake.gone.wait, 10)
    (record,) = run.records
    assert (record.outcome, record.cause, record.error) == (Outcome.CANCELLED, "impatient", None)
    assert (record.prompt_tokens, record.output_tokens) == (5, 1)
    assert record.reading is not None
    assert record.reading.idle_s >= 0.05
    assert record.reading.finished_s is None
    assert (run.counts.skipped, run.counts.running) == (1, 0)
    assert not run.counts.readers


async def test_a_reader_who_has_read_enough_cancels_over_grpc() -> None:
    """At the token that he wanted, while the server goes on."""
    gate = Gate()
    service = FakeInference([started(), delta("abc", 1, 2, 3), gate, finished(3)])
    reader = Reader(pace_tok_s=100.0, leaves_after_tokens=2)
    with serving(service) as address:
        run = await play(f"grpc://{address}", [session(turn("a"), reader=reader)])
        gone = await asyncio.to_thread(service.ended.get, True, 10)
    (record,) = run.records
    assert gone == record.request_id
    assert (record.outcome, record.cause) == (Outcome.CANCELLED, "read_enough")
    assert record.reading is not None
    assert record.reading.read_tokens >= 2


async def test_who_left_in_reading_does_not_come_back() -> None:
    """Also where the whole answer was there before he did."""
    fake = FakeOpenAi(lambda _path, _body: chat_reply("a", "b", "c"))
    reader = Reader(pace_tok_s=1.0, leaves_after_tokens=2)
    with serving_http(fake) as url:
        run = await play(url, [session(turn("a"), turn("b"), reader=reader)])
    assert [record.outcome for record in run.records] == [Outcome.FINISHED]
    assert run.counts.skipped == 1


async def test_reports_reach_a_router_of_ours_only() -> None:
    """By POST over HTTP, by its call over gRPC; a foreign server gets none."""
    reader = Reader(pace_tok_s=200.0, report_every_s=0.02)
    talk = [session(turn("a"), turn("b", pause_s=0.1), reader=reader)]
    fake = FakeOpenAi(
        lambda path, _: HttpReply(status=204) if "reading" in path else chat_reply("a", "b")
    )
    with serving_http(fake) as url:
        run = await play(url, talk)
        assert not [path for path, _ in fake.posts if "reading" in path]
        fake.models_reply = OURS
        run = await play(url, talk)
    told = [(path, json.loads(body)) for path, body in fake.posts if "reading" in path]
    first = by_turn(run)[0]
    assert told[-1] == (
        f"/v1/readahead/requests/{first.request_id}/reading",
        {"tokens_read": 2},
    )
    service = FakeInference()
    with serving(service) as address:
        run = await play(f"grpc://{address}", talk)
    assert service.readings[-1] == (by_turn(run)[0].request_id, 2)


async def test_a_tool_loop_has_no_reader() -> None:
    """Nobody reads, nobody leaves, no pace is told; the next round waits for the tool alone."""
    service = FakeInference()
    rounds = [
        turn("a", has_reader=False),
        turn("b", has_reader=False, pause_from=Pause.ENDED, pause_s=0.02),
    ]
    with serving(service) as address:
        run = await play(
            f"grpc://{address}", [session(*rounds, reader=Reader(pace_tok_s=0.1, patience_s=0.001))]
        )
    first, second = by_turn(run)
    assert second.arrival_s == pytest.approx(first.ended_s + 0.02)
    assert not service.requests[0].reading.HasField("pace_tok_s")
    assert "pace_tok_s" not in json.loads(first.to_json())
    assert first.reading is None


async def test_a_closed_loop_has_so_many_users() -> None:
    """Each begins when his last one is over: never more than that run at once."""
    most, lock = 0, threading.Lock()

    def reply(_path: str, _body: bytes) -> HttpReply:
        nonlocal most
        with lock:
            most = max(most, run.counts.running)
        return chat_reply("a", "b")

    fake = FakeOpenAi(reply)
    sessions = [session(turn("a"), index=index) for index in range(20)]
    with serving_http(fake) as url:
        sender = sender_for(url, is_chat=True)
        async with sender:
            run = run_of(sender)
            await run.offer_closed(sessions, users=3)
    assert most == 3
    assert run.counts.running == 0
    assert len(run.records) == run.counts.sessions == 20
    assert all(record.sent_s - record.arrival_s < 1 for record in run.records)
    summary = summarise(run.records, rate_req_s=None, dropped=0, is_interrupted=False)
    assert summary.invalid_because == ()


async def test_a_closed_loop_ends_by_time() -> None:
    """No session begins after it."""
    with serving_http(FakeOpenAi(lambda _path, _body: chat_reply("a"))) as url:
        sender = sender_for(url, is_chat=True)
        async with sender:
            run = run_of(sender)
            await run.offer_closed([session(turn("a"))] * 5, users=2, duration_s=0.0)
    assert run.records == []


async def test_a_foreign_server_that_refuses_running_counts() -> None:
    """Is asked again without, once; from then on it is not asked for them."""

    def reply(_path: str, body: bytes) -> HttpReply:
        if "continuous_usage_stats" in json.loads(body)["stream_options"]:
            text = b'{"error":{"message":"Unknown parameter: continuous_usage_stats"}}'
            return HttpReply(status=400, pieces=[text])
        usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
        return HttpReply(pieces=[sse(chat_chunk("a"), chat_chunk("b"), usage, "[DONE]")])

    fake = FakeOpenAi(reply)
    with serving_http(fake) as url:
        run = await play(url, [session(turn("a"), turn("b", pause_s=0.001))])
    assert [record.outcome for record in run.records] == [Outcome.FINISHED] * 2
    assert [list(record.token_counts) for record in run.records] == [[1, 1]] * 2
    assert len(fake.posts) == 3


async def test_frames_tell_their_tokens_over_http() -> None:
    """Where the server gives running counts nothing is estimated, empty frames included."""
    frames = [chat_chunk("", 0), chat_chunk("abc", 3), chat_chunk("", 4), chat_chunk("d", 5)]
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 5}})
    reply = HttpReply(pieces=[sse(*frames, usage, "[DONE]")])
    with serving_http(FakeOpenAi(lambda _path, _body: reply)) as url:
        run = await play(url, [session(turn("a"))])
    (record,) = run.records
    assert (list(record.token_counts), record.are_counts_estimated) == ([3, 1, 1], False)


async def test_a_target_that_dies_in_a_run() -> None:
    """What runs and what comes later is counted as failed, and the run comes to its end."""
    fake = FakeOpenAi(lambda _path, _body: chat_reply("a"))
    sessions = [session(turn("a"), index=index) for index in range(4)]
    sender_sessions = [*sessions, *(session(turn("b"), index=index) for index in (30, 31))]
    with serving_http(fake) as url:
        sender = sender_for(url, is_chat=True)
        await sender.__aenter__()
        await sender.models()
        run = run_of(sender)
        offered = asyncio.create_task(run.offer(sender_sessions))
        await wait_until(lambda: len(run.records) == 4)
    await offered
    await sender.__aexit__(None, None, None)
    assert run.counts.outcomes == {Outcome.FINISHED: 4, Outcome.FAILED: 2}
    summary = summarise(run.records, rate_req_s=0.01, dropped=0, is_interrupted=False)
    assert summary.causes == {"connection": 2}
    assert summary.target_lost_s is not None


async def test_connections_are_kept_and_replaced() -> None:
    """One connection serves turn after turn; one that the server has closed meanwhile is not
    mistaken for a failure."""
    fake = FakeOpenAi(lambda _path, _body: chat_reply("a"))
    with serving_http(fake) as url:
        sender = sender_for(url, is_chat=True)
        async with sender:
            for _ in range(3):
                run = run_of(sender)
                await run.offer([session(turn("a"))])
                assert [record.outcome for record in run.records] == [Outcome.FINISHED]
                assert len(fake.writers) == 1
            for writer in list(fake.writers):
                await asyncio.to_thread(_close, writer)
            run = run_of(sender)
            await run.offer([session(turn("a"))])
    assert [record.outcome for record in run.records] == [Outcome.FINISHED]


def _close(writer: asyncio.StreamWriter) -> None:
    """Closes it on the server's thread, and waits until that is done."""
    loop: asyncio.AbstractEventLoop = writer._loop  # type: ignore[attr-defined]
    done = threading.Event()

    def close() -> None:
        writer.transport.abort()
        loop.call_soon(done.set)

    loop.call_soon_threadsafe(close)
    assert done.wait(10)


async def test_stopping_ends_sessions_in_order() -> None:
    """What runs is recorded as interrupted; who pauses between turns just goes."""
    stop = asyncio.Event()

    def reply(_path: str, body: bytes) -> HttpReply:
        if "wait" in body.decode():
            loop.call_soon_threadsafe(stop.set)
            return HttpReply(pieces=[sse(chat_chunk("a"))], holds=True)
        return chat_reply("a")

    loop = asyncio.get_running_loop()
    sessions = [session(turn("a"), turn("b", pause_s=60)), session(turn("wait"), index=3)]
    with serving_http(FakeOpenAi(reply)) as url:
        run = await play(url, sessions, hooks=Hooks(stop=stop))
    assert [(r.outcome, r.cause) for r in run.records] == [
        (Outcome.FINISHED, None),
        (Outcome.CANCELLED, "interrupted"),
    ]
    assert run.is_interrupted


async def test_a_later_turn_is_dropped_at_the_bound() -> None:
    """The generator says so; the session is over."""
    fake = FakeOpenAi(lambda _path, _body: HttpReply(pieces=[sse(chat_chunk("a"))], holds=True))
    reader = Reader(pace_tok_s=50.0, patience_s=0.2)
    sessions = [session(turn("a"), turn("b"), reader=reader, index=index) for index in range(4)]
    with serving_http(fake) as url:
        run = await play(url, sessions, requests_max=2)
    assert (len(run.records), run.counts.dropped, run.counts.skipped) == (2, 2, 4)
