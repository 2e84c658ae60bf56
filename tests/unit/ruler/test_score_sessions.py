"""Thinking that nobody reads, rounds without a reader, and what classes of requests promise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from readahead.cli.main import app
from readahead.core.reading.curves import Origin, StagedCurve
from readahead.core.reading.score import Ruler
from readahead.ruler.gather import gather
from readahead.ruler.problems import FormatError
from readahead.ruler.promises import parse_zero_load_ttft
from readahead.ruler.scoring import RunScore, score_run

RULER = Ruler(pace_tok_s=2.0, alpha=1.0)
CLASS = {"name": "reasoning", "ttft_slowdown": 3.0, "tpot_s": 0.1, "think_tpot_s": 0.05}
SLOW_TOOL = {"has_reader": False, "token_times_s": [30.0, 31.0]}
"""A round that would be a disaster for a reader."""


def write(path: Path, *requests: dict[str, Any]) -> Path:
    """A log of these requests, all at 0 s unless they say otherwise."""
    lines = [
        json.dumps({"request_id": f"r{i}", "arrival_s": 0.0, "prompt_tokens": 100, **one})
        for i, one in enumerate(requests)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def scored(path: Path, ruler: Ruler = RULER) -> RunScore:
    (run,) = gather(path).runs
    return score_run(run, ruler)


def test_reading_begins_after_the_thinking(tmp_path: Path) -> None:
    """Three tokens of thinking, then text at 4 s for one who reads two tokens a second."""
    one = {"thinking_tokens": 3, "token_times_s": [1, 2, 3, 4.0, 4.1, 4.2], "ended_s": 4.2}
    found = scored(write(tmp_path / "log.jsonl", one))
    assert found.score.user_idle_s is not None
    assert found.score.user_idle_s.mean == pytest.approx(4.0 - 0.5)
    assert found.score.smooth_goodput_tok_s == pytest.approx((3 - 2.0 * 3.5) / 4.2)
    assert found.score.throughput_tok_s == pytest.approx(6 / 4.2)
    assert found.score.ttft_s is not None
    assert found.score.ttft_s.mean == 1.0
    free = Ruler(pace_tok_s=2.0, origin=Origin.FIRST_TOKEN)
    idle = scored(write(tmp_path / "log.jsonl", one), free).score.user_idle_s
    assert idle is not None
    assert idle.mean == 0.0


def test_who_never_sees_text_waits_to_the_end(tmp_path: Path) -> None:
    """Cut off while it still thinks: the censored wait is for the first token of text."""
    one = {"thinking_tokens": 9, "token_times_s": [1, 2], "outcome": "cancelled", "ended_s": 8.0}
    found = scored(write(tmp_path / "log.jsonl", one)).score
    assert found.user_idle_s is not None
    assert found.user_idle_censored_s is not None
    assert (found.user_idle_s.mean, found.user_idle_censored_s.mean) == (0.0, 7.5)


def test_a_round_without_a_reader_is_outside_of_reading(tmp_path: Path) -> None:
    """It has a throughput and a time to the first token, and costs nobody a wait."""
    answer = {"token_times_s": [0.1, 0.2, 0.3], "ended_s": 31.0}
    alone = scored(write(tmp_path / "alone.jsonl", answer)).score
    both = scored(write(tmp_path / "both.jsonl", answer, SLOW_TOOL)).score
    assert both.user_idle_s == alone.user_idle_s
    assert both.andes_qoe == alone.andes_qoe
    assert both.smooth_goodput_tok_s == alone.smooth_goodput_tok_s
    assert (both.requests, both.tokens) == (2, 5)
    assert both.ttft_s is not None
    assert both.ttft_s.count == 2


def test_a_round_without_a_reader_is_held_to_its_own_promise_only(tmp_path: Path) -> None:
    """No reading curve binds it; a bound that it has does, and an end it must come to."""
    kept = {"has_reader": False, "token_times_s": [9.0], "slo": {"e2e_s": 10.0}}
    missed = {"has_reader": False, "token_times_s": [9.0], "slo": {"e2e_s": 8.0}}
    failed = {"has_reader": False, "token_times_s": [0.1], "outcome": "failed"}
    found = scored(write(tmp_path / "log.jsonl", SLOW_TOOL, kept, missed, failed))
    assert found.each.attained.tolist() == [True, True, False, False]
    assert found.score.user_idle_s is None
    assert found.score.smooth_goodput_tok_s == 0.0


def test_a_class_is_a_promise_once_the_idle_system_is_known(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.jsonl", {"slo_class": CLASS, "thinking_tokens": 2, "token_times_s": [1.0]}
    )
    (run,) = gather(path).runs
    assert not run.slos
    assert "1 requests are of an SLO class" in run.notes[0]
    (run,) = gather(path, zero_load_ttft=parse_zero_load_ttft("0.1+0.001*tokens")).runs
    promised = run.slos[0]
    assert isinstance(promised, StagedCurve)
    assert promised.ttft_s == pytest.approx(3 * 0.2)
    assert [(one.tokens, one.tpot_s) for one in promised.stages] == [(2, 0.05), (None, 0.1)]
    assert run.notes == ()


def test_the_description_beside_the_records_says_the_idle_system(tmp_path: Path) -> None:
    own = {"slo_class": CLASS, "slo": {"e2e_s": 2.0}, "token_times_s": [1.0]}
    path = write(tmp_path / "log.jsonl", {"slo_class": CLASS, "token_times_s": [0.5]}, own)
    meta = path.with_name(path.name + ".meta.json")
    meta.write_text('{"zero_load_ttft": {"base_s": 0.1, "per_token_s": 0}}', encoding="utf-8")
    assert scored(path).each.attained.tolist() == [False, True]
    meta.write_text('{"zero_load_ttft": {"base_s": -1, "per_token_s": 0}}', encoding="utf-8")
    assert not gather(path).runs[0].slos.keys() - {1}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"has_reader": 1}, "has_reader must be true or false, is 1"),
        ({"thinking_tokens": -2}, "thinking_tokens must be a count, is -2"),
        ({"slo_class": []}, "slo_class must be an object"),
        ({"slo_class": {"tpot_s": 1}}, "ttft_slowdown is missing"),
        ({"slo_class": {**CLASS, "tpot_s": 0}}, "slo_class: tpot_s must be > 0, is 0"),
    ],
)
def test_bad_fields_are_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "log.jsonl", {"token_times_s": [1.0], **fields})
    with pytest.raises(FormatError, match=message):
        gather(path)


def test_a_given_pace_is_of_users_whose_pace_nobody_told(tmp_path: Path) -> None:
    """A log's pace counts unless it was kept from the system and --pace is given."""
    times = {"token_times_s": [1.0], "pace_tok_s": 2.0}
    path = write(tmp_path / "log.jsonl", times, {**times, "is_pace_told": False})
    means = []
    for flags in ([], ["--pace", "10"]):
        ran = CliRunner().invoke(app, ["score", str(path), "--json", *flags])
        assert ran.exit_code == 0
        means.append(json.loads(ran.stdout)["pace"])
    assert means == [2.0, 6.0]


def test_the_command_takes_the_idle_system(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"slo_class": CLASS, "token_times_s": [1.0]})
    ran = CliRunner().invoke(app, ["score", str(path), "--json", "--zero-load-ttft", "1"])
    assert json.loads(ran.stdout)["slo_attainment"] == 1.0
    ran = CliRunner().invoke(app, ["score", str(path), "--zero-load-ttft", "soon"])
    assert ran.exit_code == 2
