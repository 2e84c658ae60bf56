"""Rates of a sweep, and its peak."""

from __future__ import annotations

from pathlib import Path

import pytest
from load_samples import SampleRun

from readahead.core.reading.score import Ruler
from readahead.loadgen.report_runs import read_run
from readahead.loadgen.sweep import SweepPoint, is_bracketed, parse_rates, peak


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("1:16:6", [1, 4, 7, 10, 13, 16]),
        ("0.5:1:2", [0.5, 1]),
        ("1,2,4", [1, 2, 4]),
        ("3", [3]),
    ],
)
def test_rates(text: str, rates: list[float]) -> None:
    assert parse_rates(text) == pytest.approx(rates)


@pytest.mark.parametrize(
    "text",
    ["", "a:b:c", "1:2", "1:2:3:4", "1:2:1", "1:2:2.5", "0:4:3", "-1,2", "4,2", "2,2", "1,nan",
     "1,inf", "1:9:1000"],
)  # fmt: skip
def test_what_is_no_sweep_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="sweep"):
        parse_rates(text)


def points(folder: Path, *slownesses: float, valid: tuple[bool, ...] = ()) -> list[SweepPoint]:
    """Rates 1, 2, 3 …, each as slow as given."""
    made = []
    for number, slowness in enumerate(slownesses, start=1):
        path = SampleRun(rate_req_s=number, slowness=slowness).write(folder / f"{number}.jsonl")
        is_valid = valid[number - 1] if valid else True
        found = read_run(path, Ruler())
        made.append(SweepPoint(rate_req_s=number, score=found.score, is_valid=is_valid))
    return made


def test_the_peak_is_the_most_smooth_goodput(tmp_path: Path) -> None:
    found = points(tmp_path, 1.0, 1.0, 5.0)
    best = peak(found)
    assert best is max(found, key=lambda point: point.smooth_goodput_tok_s)
    assert best is found[1]
    assert is_bracketed(found)


def test_a_peak_at_the_edge_is_said(tmp_path: Path) -> None:
    assert not is_bracketed(points(tmp_path, 1.0, 1.0, 1.0))


def test_invalid_runs_are_no_peak(tmp_path: Path) -> None:
    found = points(tmp_path, 1.0, 1.0, 1.0, valid=(True, True, False))
    assert peak(found) is found[1]
    assert peak([]) is None
    assert not is_bracketed([])
