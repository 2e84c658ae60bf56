"""Workloads that replay traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from repo_tree import ROOT
from trace_data import data_file

from readahead.workload.plan import plan
from readahead.workload.session import Segment
from readahead.workload.spec import read_workload_spec, workload_spec
from readahead.workload.spec_problems import WorkloadError
from readahead.workload.trace_sessions import STEADY_READER


def _chats(path: Path) -> None:
    rows = [
        (7, -1, 0.0, 20, 3, [4, 5]),
        (9, -1, 1.0, 16, 2, [8]),
        (8, 7, 5.0, 40, 4, [4, 6, 9]),
        (3, -1, 6.0, 10, 0, [1]),
    ]
    names = ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "hash_ids")
    lines = [json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def test_a_trace_is_replayed_row_by_row(tmp_path: Path) -> None:
    """Times stretched, lengths kept, equal blocks equal keys, a conversation one user."""
    _chats(tmp_path / "chats.jsonl")
    file = tmp_path / "workload.toml"
    file.write_text(
        "arrivals = {kind = 'trace', path = 'chats.jsonl', rate_req_s = 0.3}\n"
        "mix = [{scenario = 'trace', tenant = 't'}]\n",
        encoding="utf-8",
    )
    workload = plan(read_workload_spec(file))
    first, second, third = workload
    assert workload.dropped == 1
    assert workload.arrivals_s.tolist() == pytest.approx([0, 2, 10])
    assert workload.mean_rate_req_s == pytest.approx(0.3)
    assert first.turns[0].segments == (Segment("block/4", 16), Segment("block/5/4", 4))
    assert third.turns[0].segments[0] == first.turns[0].segments[0]
    assert [s.prompt_tokens(0) for s in (first, second, third)] == [20, 16, 40]
    assert [s.turns[0].output_tokens for s in (first, second, third)] == [3, 2, 4]
    assert first.user == third.user != second.user
    assert first.reader is STEADY_READER
    assert workload.concurrency is None


def test_a_scenario_takes_the_lengths_of_a_slice(tmp_path: Path) -> None:
    """Its objective and readers, the trace's lengths, scaled if it says so."""
    path = tmp_path / "trace.csv"
    rows = "".join(f"{second},{100 + second},{second + 1}\n" for second in range(10))
    path.write_text(f"arrival_s,input_tokens,output_tokens\n{rows}", encoding="utf-8")
    part = {"scenario": "coder", "trace_lengths": True, "parameters": {"length_scale": 0.5}}
    arrivals = {"kind": "trace", "path": str(path), "start_s": 4, "end_s": 8}
    sessions = list(plan(workload_spec({"arrivals": arrivals, "mix": [part]})))
    assert [session.arrival_s for session in sessions] == [0, 1, 2, 3]
    assert [session.prompt_tokens(0) for session in sessions] == [52, 52, 53, 54]
    assert all(session.turns[0].slo is not None for session in sessions)
    scaled = {"scenario": "trace", "parameters": {"length_scale": 0.5, "readers": "chat"}}
    bare = list(plan(workload_spec({"arrivals": arrivals, "mix": [scaled]})))
    assert [session.prompt_tokens(0) for session in bare] == [52, 52, 53, 54]
    assert len({session.reader.pace_tok_s for session in bare}) == 4


def test_a_trace_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Absent; nothing in its slice; nobody within the limits."""
    path = tmp_path / "trace.csv"
    tree = {"arrivals": f"trace:path={path},start=5", "mix": [{"scenario": "trace"}]}
    with pytest.raises(WorkloadError, match=r"trace\.csv: cannot be read"):
        plan(workload_spec(tree))
    path.write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n", encoding="utf-8")
    with pytest.raises(WorkloadError, match=r"no row of .*trace\.csv is in the slice"):
        plan(workload_spec(tree))
    late = {
        "arrivals": "poisson:rate=0.001",
        "limits": {"duration_s": 1},
        "mix": [{"scenario": "coder"}],
    }
    with pytest.raises(WorkloadError, match="leaves nobody"):
        plan(workload_spec(late))


def test_a_closed_loop_has_no_times_and_says_so() -> None:
    """Sessions are all there; when they begin is the run's business."""
    tree = {
        "arrivals": "closed:concurrency=3",
        "limits": {"sessions": 7},
        "mix": [{"scenario": "coder"}],
    }
    workload = plan(workload_spec(tree))
    assert workload.spec.is_closed_loop
    assert workload.concurrency == 3
    assert len(list(workload)) == len(workload) == 7
    assert workload.duration_s == workload.mean_rate_req_s == 0
    with pytest.raises(IndexError, match=r"0\.\.6, got 7"):
        workload.session(7)


def test_mooncakes_prefixes_are_shared_as_recorded() -> None:
    """With an infinite cache the share of prompt tokens that were seen is the published one."""
    path = data_file(ROOT, "traces/mooncake_conversation_trace.jsonl.gz")
    tree = {"arrivals": f"trace:path={path},spread=3", "mix": [{"scenario": "trace"}]}
    seen: set[str] = set()
    hit_tokens = tokens = 0
    for session in plan(workload_spec(tree)):
        is_hit = True
        for segment in session.turns[0].segments:
            is_hit = is_hit and segment.key in seen
            hit_tokens += segment.tokens * is_hit
            tokens += segment.tokens
        seen.update(segment.key for segment in session.turns[0].segments)
    assert hit_tokens / tokens == pytest.approx(0.374, abs=0.001)


def test_the_papers_slice_of_azures_code() -> None:
    """905 requests, 3.07 a second in 1786 to 2086 s, with the mean lengths of its table."""
    path = data_file(ROOT, "traces/azure2023_code.csv.gz")
    tree = {"arrivals": f"trace:path={path},start=1786,end=2086", "mix": [{"scenario": "trace"}]}
    sessions = list(plan(workload_spec(tree)))
    assert len(sessions) == pytest.approx(905, abs=2)
    mean = sum(session.prompt_tokens(0) for session in sessions) / len(sessions)
    assert mean == pytest.approx(2061, rel=0.01)
