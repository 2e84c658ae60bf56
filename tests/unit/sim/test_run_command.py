"""`readahead simulate` from its command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from readahead.cli.main import app

SHORT = ["simulate", "--scenario", "chatbot", "--rate", "5", "--requests", "12"]


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return result.exit_code, result.output


def test_a_run_says_that_it_is_simulated(tmp_path: Path) -> None:
    records, trace = tmp_path / "run.jsonl", tmp_path / "trace.json"
    files = ["--jsonl", str(records), "--trace-out", str(trace)]
    code, said = run(*SHORT, "--prefill", "1", "--decode", "2", *files)
    assert code == 0, said
    assert "SIMULATED" in said
    assert "nothing was measured" in said
    assert "12 requests of 12 sessions" in said
    assert len(records.read_text().splitlines()) == 12
    about = json.loads((tmp_path / "run.jsonl.meta.json").read_text())
    assert about["simulated"] is True
    assert about["settings"]["cluster"]["prefill"] == 1
    assert json.loads(trace.read_text())["otherData"] == {"simulated": True}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        path = tmp_path / name
        code, said = run(*SHORT, "--noise-sigma", "0.2", "--seed", "4", "--jsonl", str(path))
        assert code == 0, said
        written.append((path.read_bytes(), (tmp_path / f"{name}.meta.json").read_bytes()))
    assert written[0] == written[1]


def test_a_cluster_file_is_read_and_flags_go_before_it(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(
        'decode = 3\npolicy = "sarathi"\n[knobs]\nchunk_tokens = 256\n'
        '[core.migration]\ntrigger = "need"\n',
        encoding="utf-8",
    )
    code, said = run(*SHORT, "--cluster", str(cluster), "--knob", "chunk_tokens=512")
    assert code == 0, said
    assert "decode-02" in said
    assert ", sarathi" in said


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["simulate"], "say one of --workload, --scenario and --trace"),
        ([*SHORT, "--policy", "nope"], "policy must be one of"),
        ([*SHORT, "--profile", "nope"], "no profile 'nope'"),
        ([*SHORT, "--link", "nope"], "link must be one of"),
        ([*SHORT, "--knob", "budget"], "--knob must be NAME=NUMBER"),
        ([*SHORT, "--knob", "nope=1"], "nope is no knob of vllm-chunked"),
        ([*SHORT, "--decode", "0"], "decode must be in"),
        ([*SHORT, "--mean-up-s", "-1"], "--mean-up-s must be positive"),
    ],
)
def test_wrong_usage_is_answered_with_what_was_expected(
    arguments: list[str], expected: str
) -> None:
    code, said = run(*arguments)
    assert code == 2
    assert expected in " ".join(said.replace("│", " ").split())


def test_an_unknown_setting_is_named_with_its_file(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text("decoders = 3\n", encoding="utf-8")
    code, said = run(*SHORT, "--cluster", str(cluster))
    assert code == 2
    assert "decoders is an unknown key" in " ".join(said.replace("│", " ").split())


def test_a_file_that_cannot_be_written_has_its_own_exit_status(tmp_path: Path) -> None:
    code, said = run(*SHORT, "--jsonl", str(tmp_path / "nowhere" / "run.jsonl"))
    assert code == 4
    assert "cannot write" in said
