"""`readahead score`, as people call it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from readahead.cli.main import app

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "tests" / "data" / "score"
FILES = [str(SAMPLES / n) for n in ("load.jsonl", "vllm-bench.json", "aiperf.jsonl")]


def score(*arguments: str) -> Result:
    """Runs the command on a terminal of 100 columns."""
    return CliRunner().invoke(app, ["score", *arguments], env={"COLUMNS": "100"})


def test_one_table_for_logs_of_three_tools() -> None:
    result = score(*FILES)
    assert result.exit_code == 0, result.output
    header = result.output[: result.output.index("smooth goodput")]
    assert all(word in re.sub(r"[^\w.-]", "", header) for word in ("load.jsonl", "aiperf"))
    assert max(map(len, result.output.splitlines())) <= 100


def test_json_is_an_object_per_file_and_the_settings_are_in_it() -> None:
    result = score(*FILES, "--json", "--alpha", "1", "--pace", "3", "--origin", "first_token",
                   "--form", "F3", "--slo", "ttft=1,tbt=0.2", "--percentile", "95")  # fmt: skip
    assert result.exit_code == 0, result.output
    objects = [json.loads(line) for line in result.output.splitlines()]
    assert [one["file"] for one in objects] == FILES
    for one in objects:
        assert (one["form"], one["alpha"], one["pace"], one["origin"]) == (
            "F3",
            1,
            3,
            "first_token",
        )
        assert one["slo"] == "ttft=1,tbt=0.2"
        assert one["user_idle_s"]["p95"] >= one["user_idle_s"]["p90"]


def test_file_that_cannot_be_scored_does_not_stop_the_others(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.jsonl")
    result = score(absent, FILES[0], "--json")
    assert result.exit_code == 1
    first, second = (json.loads(line) for line in result.output.splitlines())
    assert first == {"file": absent, "error": "No such file or directory"}
    assert second["requests"] == 10


def test_page_is_written(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    result = score(FILES[0], "--html", str(path))
    assert result.exit_code == 0, result.output
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_page_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    result = score(FILES[0], "--html", str(tmp_path / "absent" / "page.html"))
    assert result.exit_code == 2
    assert "cannot write" in result.output


def test_end_of_observation_charges_who_was_left_hanging(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"request_id":"a","arrival_s":0,"token_times_s":[0.1],"outcome":"failed"}\n',
        encoding="utf-8",
    )
    idle = [
        json.loads(score(str(log), "--json", *more).output)["user_idle_censored_s"]["mean"]
        for more in ((), ("--observed-until", "10"))
    ]
    assert idle == [0.0, pytest.approx(9.6)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--slo", "ttft=1"), ("--slo", "fast"), ("--slo", "e2e=-1"), ("--slo", "ttft=x,tbt=1"),
        ("--alpha", "-1"), ("--pace", "0"), ("--offset-s", "-1"), ("--percentile", "101"),
        ("--form", "F9"), ("--format", "xml"),
    ],
)  # fmt: skip
def test_wrong_usage_is_refused(arguments: tuple[str, str]) -> None:
    assert score(FILES[0], *arguments).exit_code == 2


def test_documented_examples_are_of_the_documented_schema(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    text = (ROOT / "docs" / "reference" / "interchange.md").read_text(encoding="utf-8")
    (schema_text,) = re.findall(r"```json\n(\{\n.*?\n\})\n```", text, re.DOTALL)
    (examples,) = re.findall(r"```jsonl\n(.*?)```", text, re.DOTALL)
    schema = json.loads(schema_text)
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator(schema)
    for line in examples.splitlines():
        checker.validate(json.loads(line))
    for line in (SAMPLES / "load.jsonl").read_text(encoding="utf-8").splitlines():
        checker.validate(json.loads(line))
    log = tmp_path / "log.jsonl"
    log.write_text(examples, encoding="utf-8")
    (found,) = [json.loads(line) for line in score(str(log), "--json").output.splitlines()]
    assert found["requests"] == len(examples.splitlines())
    assert found["left_out"]["requests"] == 0


@pytest.mark.parametrize("name", ["row per token", "row per request"])
def test_documented_csv_is_read(tmp_path: Path, name: str) -> None:
    text = (ROOT / "docs" / "reference" / "interchange.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```csv\n(.*?)```", text, re.DOTALL)
    log = tmp_path / "log.csv"
    log.write_text(blocks[0 if name == "row per token" else 1], encoding="utf-8")
    found = json.loads(score(str(log), "--json").output)
    assert (found["requests"], found["tokens"]) == (2, 3)


def test_how_to_tells_the_numbers_that_come_out(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "score-a-run.md").read_text(encoding="utf-8")
    (answers,) = re.findall(r"```jsonl\n(.*?)```", text, re.DOTALL)
    log = tmp_path / "answers.jsonl"
    log.write_text(answers, encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| (-?[\d.]+) (?:tok/s|s) \|", text, re.MULTILINE)
    assert len(rows) == 6
    shown = score(str(log)).output
    for label, value in rows:
        pattern = re.escape(label).replace(r",\ mean", r", s\s+mean")
        assert re.search(rf"{pattern}[^\n]* {re.escape(value)}\D", shown), f"{label}: {value}"
