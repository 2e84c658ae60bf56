"""Traces of each format, good and bad."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from repo_tree import ROOT
from trace_data import data_file

from readahead.workload.traces.formats import TraceFormat, read_trace, sniffed
from readahead.workload.traces.lines import TraceError

Write = Callable[[str, str], Path]

AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 18:15:46.6805900,374,44\n"
    "2023-11-16 18:15:50.9951690,396,109\n"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n"
    "2024-05-10 00:00:01+00:00,2399,6\n"
)
COMPACT = "arrival_s,input_tokens,output_tokens,n_blocks\n3.5,10,20,1\n4.0,11,21,1\n"
BURST_6 = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,GPT-3,472,18,490,Conversation log\n"
    "45,GPT-4,0,0,0,API log\n"
    "118,GPT-4,417,276,693,Conversation log\n"
)
BURST_8 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "19440110.0,aa,43,GPT-4,906,446,1352,Conversation log\n"
    "19440161.0,bb,2,GPT-3,36,29,65,Conversation log\n"
    "19440170.0,aa,2,GPT-3,36,29,65,Conversation log\n"
)


def _objects(*rows: dict[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


MOONCAKE = _objects(
    {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]},
    {"timestamp": 3000, "input_length": 512, "output_length": 6, "hash_ids": [0]},
)
BAILIAN = _objects(
    {
        "chat_id": 7,
        "parent_chat_id": -1,
        "timestamp": 1.5,
        "input_length": 20,
        "output_length": 3,
        "turn": 1,
        "hash_ids": [4, 5],
    },
    {
        "chat_id": 8,
        "parent_chat_id": 7,
        "timestamp": 9.5,
        "input_length": 40,
        "output_length": 3,
        "turn": 2,
        "hash_ids": [4, 6, 9],
    },
)
LOAD = _objects(
    {"request_id": "b", "arrival_s": 2.0, "prompt_tokens": 9, "output_tokens": 8},
    {"request_id": "a", "arrival_s": 1.0, "prompt_tokens": 7, "output_tokens": 6},
    {"request_id": "c", "arrival_s": 3.0, "prompt_tokens": 7, "output_tokens": 0},
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file, packed if its name says so."""

    def written(name: str, text: str) -> Path:
        path = tmp_path / name
        content = text.encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return written


@pytest.mark.parametrize("name", ["trace", "trace.gz"])
@pytest.mark.parametrize(
    ("text", "trace_format", "times_s", "prompts", "outputs"),
    [
        (AZURE_2023, "azure", [0, 4.314579], [374, 396], [44, 109]),
        (AZURE_2024, "azure", [0, 0.99007], [2162, 2399], [5, 6]),
        (COMPACT, "compact", [0, 0.5], [10, 11], [20, 21]),
        (BURST_6, "burstgpt", [0, 113], [472, 417], [18, 276]),
        (BURST_8, "burstgpt", [0, 51, 60], [906, 36, 36], [446, 29, 29]),
        (MOONCAKE, "mooncake", [0, 3], [600, 512], [5, 6]),
        (BAILIAN, "bailian", [0, 8], [20, 40], [3, 3]),
        (LOAD, "load", [0, 1], [7, 9], [6, 8]),
    ],
)
def test_each_format_is_told_and_read(
    write: Write,
    name: str,
    text: str,
    trace_format: str,
    times_s: list[float],
    prompts: list[int],
    outputs: list[int],
) -> None:
    """The first row arrives at 0, and rows are in the order of arrival."""
    path = write(name, text)
    assert sniffed(path, text.splitlines()[0]) == trace_format
    rows = read_trace(path)
    assert rows.arrival_s.tolist() == pytest.approx(times_s, abs=2e-6)
    assert rows.prompt_tokens.tolist() == prompts
    assert rows.output_tokens.tolist() == outputs
    named = read_trace(path, TraceFormat(trace_format))
    assert named.arrival_s.tolist() == rows.arrival_s.tolist()


def test_failed_requests_are_dropped_and_counted(write: Write) -> None:
    """A row without prompt or answer cannot be sent."""
    assert read_trace(write("trace.csv", BURST_6)).dropped == 1
    assert read_trace(write("trace.jsonl", LOAD)).dropped == 1


def test_conversations_and_blocks_stay_with_their_rows(write: Write) -> None:
    """Also where the file is not in the order of arrival."""
    burst = read_trace(write("burst.csv", BURST_8))
    assert burst.chats is not None
    assert burst.chats.tolist() == [0, 1, 0]
    first, second = MOONCAKE.splitlines(keepends=True)
    for text in (MOONCAKE, second + first):
        blocks = read_trace(write("mooncake.jsonl", text)).blocks
        assert blocks is not None
        assert [blocks.of(row).tolist() for row in range(2)] == [[0, 1], [0]]
    chats = read_trace(write("bailian.jsonl", BAILIAN)).chats
    assert chats is not None
    assert chats.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (COMPACT + "x,1,2,3\n", 4, "expected 4 fields with arrival_s in seconds"),
        (COMPACT + "5,1\n", 4, "2 fields"),
        (COMPACT + "5,-1,2,3\n", 4, "lengths must be in 0.."),
        (COMPACT + "nan,1,2,3\n", 4, "must be finite"),
        (COMPACT + "5,1.5,2,3\n", 4, "whole tokens"),
        (AZURE_2023 + "yesterday,1,2\n", 4, "TIMESTAMP in date and time"),
        (MOONCAKE + "{\n", 3, "expected one JSON object per line"),
        (MOONCAKE + "[]\n", 3, "expected a JSON object, got list"),
        (
            MOONCAKE + '{"timestamp": 1, "input_length": 5, "output_length": 1, "hash_ids": []}\n',
            3,
            "hash_ids must have 1 blocks of 512 tokens for 5 tokens, has 0",
        ),
        (MOONCAKE + '{"timestamp": 1, "input_length": "5"}\n', 3, "input_length must be a whole"),
        (LOAD + '{"arrival_s": true}\n', 4, "arrival_s must be a number, got True"),
        ("a,b\n1,2\n", 1, "is of no known format; expected a CSV header with"),
        ("", 1, "is of no known format"),
        ('{"a": 1}\n', 1, "is of no known format"),
        ("{\n", 1, "expected one JSON object per line"),
    ],
)
def test_a_bad_line_is_named(write: Write, text: str, line: int, said: str) -> None:
    """The error says the file, the line, and what was expected."""
    path = write("trace.txt", text)
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert str(raised.value).startswith(f"{path}, line {line}: ")
    assert said in str(raised.value)


def test_a_file_that_is_no_trace_is_refused(write: Write, tmp_path: Path) -> None:
    """Absent, not packed though its name says so, cut off, not text, without a row, misnamed."""
    unpacked = tmp_path / "unpacked.gz"
    unpacked.write_text(COMPACT)
    cut = tmp_path / "cut.gz"
    cut.write_bytes(gzip.compress((COMPACT * 500).encode())[:-9])
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", unpacked, cut, binary):
        with pytest.raises(TraceError, match=path.name):
            read_trace(path)
    with pytest.raises(TraceError, match="no request that can be replayed"):
        read_trace(write("empty.csv", COMPACT.splitlines()[0] + "\n"))
    with pytest.raises(TraceError, match=r"line 1: expected the columns TIMESTAMP"):
        read_trace(write("compact.csv", COMPACT), TraceFormat.AZURE)


@pytest.mark.parametrize(
    ("name", "rows", "span_s"),
    [
        ("azure2023_conv.csv.gz", 19366, 3501.7),
        ("azure2023_code.csv.gz", 8819, 3435.9),
        ("mooncake_conversation_trace.jsonl.gz", 12031, 3537.0),
        ("burstgpt_first_rows_fixture.csv", 42, None),
    ],
)
def test_public_traces_are_read_whole(name: str, rows: int, span_s: float | None) -> None:
    """Rows and length as their summary says."""
    read = read_trace(data_file(ROOT, f"traces/{name}"))
    assert len(read) + read.dropped == rows
    if span_s is not None:
        assert read.arrival_s[-1] == pytest.approx(span_s, abs=0.1)
