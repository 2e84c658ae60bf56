"""What is wrong with a file is named with its line, and what can be scored is scored."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from readahead.ruler.gather import Scored, gather
from readahead.ruler.problems import EXAMPLES_PER_KIND_MAX, FormatError, ProblemKind, Problems

SAMPLES = Path(__file__).parents[2] / "data" / "score"
GOOD = {"request_id": "good", "arrival_s": 1.0, "token_times_s": [1.5, 1.6]}


def scored(tmp_path: Path, *lines: object, end: str = "\n") -> Scored:
    """A file of the interchange format, with a good request first."""
    path = tmp_path / "run.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (GOOD, *lines)]
    path.write_text("\n".join(texts) + end, encoding="utf-8")
    return gather(path)


BAD = {
    "no JSON": ("{nonsense", ProblemKind.NOT_READABLE),
    "no object": ("[1, 2]", ProblemKind.NOT_READABLE),
    "no id": ({"arrival_s": 1, "token_times_s": []}, ProblemKind.MISSING_FIELD),
    "no arrival": ({"request_id": "x", "token_times_s": []}, ProblemKind.MISSING_FIELD),
    "no tokens": ({"request_id": "x", "arrival_s": 1}, ProblemKind.MISSING_FIELD),
    "arrival is text": (GOOD | {"request_id": "x", "arrival_s": "1"}, ProblemKind.BAD_VALUE),
    "arrival is nan": (GOOD | {"request_id": "x", "arrival_s": math.nan}, ProblemKind.BAD_VALUE),
    "token is text": (GOOD | {"request_id": "x", "token_times_s": ["2"]}, ProblemKind.BAD_VALUE),
    "token is null": (GOOD | {"request_id": "x", "token_times_s": [None]}, ProblemKind.BAD_VALUE),
    "token is inf": (GOOD | {"request_id": "x", "token_times_s": [1e999]}, ProblemKind.BAD_VALUE),
    "outcome": (GOOD | {"request_id": "x", "outcome": "lost"}, ProblemKind.BAD_VALUE),
    "slo": (GOOD | {"request_id": "x", "slo": {"tbt_s": 1}}, ProblemKind.BAD_VALUE),
    "slo is negative": (GOOD | {"request_id": "x", "slo": {"e2e_s": -1}}, ProblemKind.BAD_VALUE),
    "pace": (GOOD | {"request_id": "x", "pace_tok_s": 0}, ProblemKind.BAD_VALUE),
    "made": (GOOD | {"request_id": "x", "made_times_s": [1.0]}, ProblemKind.BAD_VALUE),
    "negative arrival": (
        {"request_id": "x", "arrival_s": -1, "token_times_s": []}, ProblemKind.NEGATIVE_TIME,
    ),
    "negative token": (
        {"request_id": "x", "arrival_s": 0, "token_times_s": [-1, 1]}, ProblemKind.NEGATIVE_TIME,
    ),
    "token before arrival": (
        {"request_id": "x", "arrival_s": 2, "token_times_s": [1]}, ProblemKind.NEGATIVE_TIME,
    ),
    "unordered": (
        {"request_id": "x", "arrival_s": 1, "token_times_s": [2, 4, 3]},
        ProblemKind.UNORDERED_TIMES,
    ),
    "clock of 1970": (
        {"request_id": "x", "arrival_s": 2, "token_times_s": [1.8e9]}, ProblemKind.MIXED_CLOCKS,
    ),
    "twice": (GOOD, ProblemKind.DUPLICATE_ID),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_request_is_left_out_and_named_with_its_line(tmp_path: Path, case: str) -> None:
    line, kind = BAD[case]
    found = scored(tmp_path, line)
    assert [run.request_ids for run in found.runs] == [("good",)]
    assert found.problems.counts == {kind: 1}
    assert found.problems.left_out == 1
    (problem,) = found.problems.examples
    assert str(problem).startswith(f"{tmp_path / 'run.jsonl'}:2: ")


def test_truncated_last_line_is_said_to_be_that(tmp_path: Path) -> None:
    found = scored(tmp_path, '{"request_id": "x", "arri', end="")
    assert found.problems.counts == {ProblemKind.TRUNCATED: 1}
    assert found.runs[0].requests == 1


def test_request_of_another_clock_than_most_is_left_out(tmp_path: Path) -> None:
    others = [GOOD | {"request_id": f"r{i}"} for i in range(3)]
    stray = {"request_id": "x", "arrival_s": 1.8e9, "token_times_s": [1.8e9 + 1], "pace_tok_s": 3}
    late = GOOD | {"request_id": "last", "slo": {"e2e_s": 4}, "made_times_s": [1.1, 1.2]}
    found = scored(tmp_path, *others, stray, late)
    (run,) = found.runs
    assert "x" not in run.request_ids
    assert found.problems.counts == {ProblemKind.MIXED_CLOCKS: 1}
    assert found.problems.examples[0].line == 5
    kept = run.timeline(4)
    assert (kept.request_id, kept.token_times_s) == ("last", [1.5, 1.6])
    assert kept.slo is not None
    assert kept.made_times_s == [1.1, 1.2]


def test_finished_without_a_token_is_scored_and_noted(tmp_path: Path) -> None:
    found = scored(tmp_path, {"request_id": "x", "arrival_s": 1, "token_times_s": []})
    assert found.runs[0].requests == 2
    assert found.problems.counts == {ProblemKind.NO_FIRST_TOKEN: 1}
    assert found.problems.left_out == 0


def test_impossible_end_is_not_used_and_noted(tmp_path: Path) -> None:
    found = scored(tmp_path, GOOD | {"request_id": "x", "ended_s": 1.2})
    assert found.runs[0].timeline(1).ended_s is None
    assert found.problems.counts == {ProblemKind.BAD_VALUE: 1}
    assert found.problems.left_out == 0


def test_steps_back_by_rounding_are_straightened(tmp_path: Path) -> None:
    found = scored(tmp_path, GOOD | {"request_id": "x", "token_times_s": [2.0, 2.0 - 1e-9, 3.0]})
    assert found.problems.total == 0
    assert found.runs[0].timeline(1).token_times_s == [2.0, 2.0, 3.0]


def test_file_without_a_request_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text('{"request_id": "x"}\n', encoding="utf-8")
    with pytest.raises(FormatError, match="arrival_s is missing"):
        gather(path)


@pytest.mark.parametrize("name", ["vllm-bench.json", "guidellm.json"])
def test_cut_off_document_is_read_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    text = (SAMPLES / name).read_text(encoding="utf-8")
    whole = sum(run.requests for run in gather(SAMPLES / name).runs)
    path = tmp_path / name
    sizes = []
    for share in (0.3, 0.6, 0.8, 0.97):
        path.write_text(text[: int(share * len(text))], encoding="utf-8")
        try:
            found = gather(path)
        except FormatError:
            sizes.append(0)
            continue
        assert found.problems.counts[ProblemKind.TRUNCATED] == 1
        sizes.append(sum(run.requests for run in found.runs))
    assert sizes == sorted(sizes)
    assert 0 < sizes[-1] <= whole


def test_csv_row_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "request_id,arrival_s,token_time_s\na,1,2\nb,1,x\nb,1,3\nc,1\nd,1,2\nd,9,3\n",
        encoding="utf-8",
    )
    found = gather(path)
    assert found.runs[0].request_ids == ("a",)
    assert [(one.line, one.kind) for one in found.problems.examples] == [
        (3, ProblemKind.BAD_VALUE),
        (5, ProblemKind.TRUNCATED),
        (7, ProblemKind.BAD_VALUE),
    ]
    assert found.problems.left_out == 3


def test_findings_are_counted_without_end_and_kept_to_a_few() -> None:
    problems = Problems(file="log")
    for line in range(1000):
        problems.add(ProblemKind.NEGATIVE_TIME, "no", line=line)
    assert problems.total == problems.left_out == 1000
    assert len(problems.examples) == EXAMPLES_PER_KIND_MAX
