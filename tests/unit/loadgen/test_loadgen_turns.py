"""What is sent, what is watched and what is counted of sessions, without a server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome, Reading, Record, Visit
from readahead.loadgen.request import Part, Request
from readahead.loadgen.sse_answer import SseAnswer
from readahead.loadgen.statistics import summarise
from readahead.loadgen.timeline import UNKNOWN, Timeline
from readahead.ruler.gather import gather
from readahead.workload.reader import Reader
from readahead.workload.reading_run import ReaderRun

RECORD = Record(
    request_id="r0",
    arrival_s=1.0,
    sent_s=1.0,
    ended_s=2.0,
    frame_times_s=[1.5],
    token_counts=[1],
    are_counts_estimated=False,
    prompt_tokens=9,
    output_tokens=1,
    pace_tok_s=5.0,
    outcome=Outcome.FINISHED,
    error=None,
)


def visit(turn: int) -> Visit:
    return Visit(session_id="s", turn=turn, scenario="chatbot", tenant="t", user="u")


def request(*parts: Part) -> Request:
    return Request(request_id="r", parts=parts, output_tokens=1)


def test_a_conversation_in_three_forms() -> None:
    """Neighbours of one side are one message; ids and text are not mixed up."""
    talk = request(
        Part(role="user", content="a"),
        Part(role="user", content="b"),
        Part(role="assistant", content="c"),
        Part(role="user", content="d"),
    )
    assert talk.text == "abcd"
    assert talk.token_ids is None
    assert [(one["role"], one["content"]) for one in talk.messages] == [
        ("user", "ab"),
        ("assistant", "c"),
        ("user", "d"),
    ]
    ids = request(Part(role="user", content=[1, 2]), Part(role="assistant", content=[3]))
    assert ids.token_ids == [1, 2, 3]
    with pytest.raises(ValueError, match="a chat takes text"):
        _ = ids.messages


def test_only_first_turns_can_make_a_run_late() -> None:
    """Later ones follow answers; in a closed loop nothing is late."""
    first = replace(RECORD, visit=visit(0))
    later = replace(RECORD, visit=visit(1), sent_s=1.5)
    summary = summarise([first, later], rate_req_s=1.0, dropped=0, is_interrupted=False)
    assert summary.invalid_because == ()
    assert summary.turn_lateness_s is not None
    assert summary.turn_lateness_s.p99 == 0.5
    late = replace(first, sent_s=1.5)
    assert summarise([late], rate_req_s=1.0, dropped=0, is_interrupted=False).invalid_because
    assert not summarise([late], rate_req_s=None, dropped=0, is_interrupted=False).invalid_because


def test_when_the_target_was_lost() -> None:
    """Only if nothing went well after it."""
    lost = replace(RECORD, outcome=Outcome.FAILED, cause="connection")
    records = [RECORD, replace(lost, ended_s=4.0), replace(lost, ended_s=3.0)]
    summary = summarise(records, rate_req_s=1.0, dropped=0, is_interrupted=False)
    assert (summary.target_lost_s, summary.causes) == (3.0, {"connection": 2})
    recovered = [*records, replace(RECORD, ended_s=5.0)]
    summary = summarise(recovered, rate_req_s=1.0, dropped=0, is_interrupted=False)
    assert summary.target_lost_s is None


def test_a_line_says_who_read_it() -> None:
    """Names that the report reads; what is not known is left out."""
    reading = Reading(
        idle_s=0.5, stalls=2, read_tokens=1, finished_s=2.5, reports=3, is_pace_told=True
    )
    fields = json.loads(
        replace(RECORD, visit=visit(3), reading=reading, cause="impatient").to_json()
    )
    expected = {
        "session_id": "s",
        "turn": 3,
        "scenario": "chatbot",
        "tenant": "t",
        "user": "u",
        "cause": "impatient",
        "reader_idle_s": 0.5,
        "reader_stalls": 2,
        "reader_tokens": 1,
        "reader_finished_s": 2.5,
        "reports_sent": 3,
    }
    assert {name: fields[name] for name in expected} == expected
    assert not {"slo_class", "thinking_tokens", "is_pace_told"} & fields.keys()


def test_the_ruler_reads_the_records(tmp_path: Path) -> None:
    """What it does not know it leaves alone; who left is censored, not lost."""
    left = replace(
        RECORD,
        request_id="r1",
        outcome=Outcome.CANCELLED,
        cause="impatient",
        visit=visit(0),
        reading=Reading(
            idle_s=9.0, stalls=1, read_tokens=1, finished_s=None, reports=0, is_pace_told=False
        ),
    )
    path = tmp_path / "run.jsonl"
    path.write_text(f"{RECORD.to_json()}\n{left.to_json()}\n")
    (run,) = gather(path, name="run").runs
    assert list(run.request_ids) == ["r0", "r1"]
    assert list(run.ended_normally) == [True, False]
    assert list(run.paces_tok_s) == [5.0, 5.0]


def test_who_waits_now_and_what_it_was_worth() -> None:
    """Tokens less 2.5 x pace x idle, of those that are over and of those that run."""
    counts = LiveCounts()
    done = ReaderRun(Reader(pace_tok_s=2.0), commit_s=0.0)
    waiting = ReaderRun(Reader(pace_tok_s=2.0), commit_s=0.0)
    counts.reads("a", done, pace_tok_s=2.0)
    counts.reads("b", waiting, pace_tok_s=2.0)
    done.deliver(20, now=0.5)
    assert (counts.idle_readers(1.0), counts.idle_readers(0.4)) == (1, 0)
    done.end(now=1.0)
    counts.stopped_reading("a", 1.0)
    assert counts.benefit_tokens == 20
    assert counts.smooth_goodput_tok_s(2.0) == pytest.approx((20 - 2.5 * 2.0 * 1.5) / 2.0)
    assert LiveCounts().smooth_goodput_tok_s(0.0) == 0.0


def answer_of(*events: Mapping[str, object]) -> Timeline:
    timeline = Timeline(arrival_s=0.0, counts=LiveCounts())
    answer = SseAnswer(timeline)
    for index, event in enumerate(events):
        assert not answer.feed(b"data: %b\n\n" % json.dumps(event).encode(), float(index))
    return timeline


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": 4, "completion_tokens": tokens}


def test_a_total_in_the_last_frame_is_no_frames_tokens() -> None:
    """Some servers count once, in the frame that says why the answer ended."""
    text = {"choices": [{"text": "ab"}]}
    last = {"choices": [{"text": "", "finish_reason": "stop"}], "usage": usage(9)}
    timeline = answer_of(text, text, last)
    assert list(timeline.tokens) == [UNKNOWN, UNKNOWN]
    told = answer_of({**text, "usage": usage(2)}, last)
    assert list(told.tokens) == [2, 7]
    assert told.prompt_tokens == 4


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
def test_thinking_is_text_too(field: str) -> None:
    """Whatever the server calls it."""
    timeline = answer_of({"choices": [{"delta": {field: "hm"}}]}, {"choices": [{"delta": {}}]})
    assert (list(timeline.characters), list(timeline.times_s)) == ([2], [0.0])
