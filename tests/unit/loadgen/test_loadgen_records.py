"""Records, their file and the numbers made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from readahead.loadgen.records import Outcome, Record, RecordFile
from readahead.loadgen.statistics import summarise

RECORD = Record(
    request_id="r0",
    arrival_s=1.0,
    sent_s=1.001,
    ended_s=2.0,
    frame_times_s=[1.5, 1.75, 2.0],
    token_counts=[1, 2, 1],
    are_counts_estimated=False,
    prompt_tokens=9,
    output_tokens=4,
    pace_tok_s=5.0,
    outcome=Outcome.FINISHED,
    error=None,
)


def test_a_line_has_one_time_per_token() -> None:
    """So that who knows nothing of frames reads it right; the counts tell the frames."""
    assert json.loads(RECORD.to_json()) == {
        "request_id": "r0",
        "arrival_s": 1.0,
        "sent_s": 1.001,
        "ended_s": 2.0,
        "token_times_s": [1.5, 1.75, 1.75, 2.0],
        "token_counts": [1, 2, 1],
        "prompt_tokens": 9,
        "output_tokens": 4,
        "pace_tok_s": 5.0,
        "outcome": "finished",
    }


def test_optional_fields_are_left_out() -> None:
    """No pace, no error, one token a frame: nothing is said of them."""
    plain = replace(RECORD, token_counts=[1, 1, 1], pace_tok_s=None)
    assert (
        not {"token_counts", "pace_tok_s", "error", "token_counts_estimated"}
        & json.loads(plain.to_json()).keys()
    )
    failed = replace(RECORD, outcome=Outcome.FAILED, error="gone", are_counts_estimated=True)
    fields = json.loads(failed.to_json())
    assert (fields["outcome"], fields["error"]) == ("failed", "gone")
    assert fields["token_counts_estimated"] is True


async def test_a_file_keeps_all_records_in_order(tmp_path: Path) -> None:
    """Each record is one line."""
    path = tmp_path / "records.jsonl"
    async with RecordFile(path) as file:
        for index in range(100):
            await file.add(replace(RECORD, request_id=str(index)))
    lines = path.read_text().splitlines()
    assert [json.loads(line)["request_id"] for line in lines] == [str(i) for i in range(100)]
    assert file.error is None


async def test_a_full_disk_is_reported_and_does_not_stop_the_run() -> None:
    """Every record that was not written is counted."""
    file = RecordFile(Path("/dev/full"))
    async with file:
        for _ in range(10):
            await file.add(RECORD)
    assert file.error is not None
    assert "No space left" in str(file.error)
    assert file.lost == 10


async def test_a_file_that_cannot_be_opened_is_an_error_at_once(tmp_path: Path) -> None:
    """Before any load is offered."""
    with pytest.raises(OSError, match="Is a directory"):
        await RecordFile(tmp_path).__aenter__()


def summary_of(records: Sequence[Record], **overrides: int) -> tuple[str, ...]:
    return summarise(
        records, rate_req_s=10.0, dropped=overrides.get("dropped", 0), is_interrupted=False
    ).invalid_because


def test_the_numbers_of_a_run() -> None:
    """Each by its formula, from three records."""
    slow = replace(RECORD, frame_times_s=[3.0], token_counts=[1], ended_s=4.0)
    refused = replace(
        RECORD, frame_times_s=[], token_counts=[], outcome=Outcome.REJECTED, ended_s=1.1
    )
    summary = summarise([RECORD, slow, refused], rate_req_s=1.0, dropped=0, is_interrupted=False)
    assert summary.span_s == 4.0
    assert summary.outcomes == {Outcome.FINISHED: 2, Outcome.REJECTED: 1}
    assert summary.requests_per_s == 0.5
    assert summary.tokens_per_s == 5 / 4
    assert summary.ttft_from_arrival_s is not None
    assert (summary.ttft_from_arrival_s.p50, summary.ttft_from_arrival_s.p99) == (0.5, 2.0)
    assert summary.ttft_from_send_s is not None
    assert summary.ttft_from_send_s.p50 == pytest.approx(0.499)
    assert summary.tpot_s is not None
    assert summary.tpot_s.p50 == pytest.approx(0.5 / 3)
    assert summary.itl_s is not None
    assert (summary.itl_s.count, summary.itl_s.p50, summary.itl_s.p99) == (3, 0.25, 0.25)
    assert summary.e2e_s is not None
    assert summary.e2e_s.p99 == 3.0
    assert summary.invalid_because == ()


def test_a_run_without_anything_has_no_numbers() -> None:
    """Undefined is None, not zero."""
    summary = summarise([], rate_req_s=1.0, dropped=0, is_interrupted=False)
    assert summary.ttft_from_arrival_s is None
    assert summary.itl_s is None
    assert summary.requests_per_s == 0.0


def test_what_makes_a_run_invalid() -> None:
    """Sends later than a hundredth of the mean gap, and requests that the generator dropped."""
    assert summary_of([RECORD]) == ()  # 1 ms late, at 10/s exactly the limit
    (late,) = summary_of([replace(RECORD, sent_s=1.0011)])
    assert "late: p99 1.10 ms" in late
    (dropped,) = summary_of([RECORD], dropped=3)
    assert "3 requests were dropped" in dropped
