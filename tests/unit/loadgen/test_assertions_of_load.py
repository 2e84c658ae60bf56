"""Bounds that a run must come up to."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from load_samples import SampleRun

from readahead.core.reading.score import Ruler
from readahead.loadgen.assertions import check, junit_xml, parse_assertion
from readahead.loadgen.report_runs import LoadRun, read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadRun:
    """A sample."""
    return read_run(SampleRun().write(tmp_path_factory.mktemp("run") / "run.jsonl"), Ruler())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an assertion is METRIC"),
        ("smooth_goodput", "an assertion is METRIC"),
        ("smooth_goodput=>3", "an assertion is METRIC"),
        ("smooth_goodput>=lots", "is no number"),
        ("smooth_goodput>=nan", "must be a number"),
        ("speed>=3", "no metric is called 'speed'"),
        ("ttft_s<=3", "say which of it"),
        ("ttft_s.p101<=3", "say which of it"),
        ("smooth_goodput.p50>=3", "is one number"),
    ],
)
def test_what_is_no_assertion_says_why(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_assertion(text)


def test_values_are_the_rulers(run: LoadRun) -> None:
    score = run.score.score
    assert score.ttft_s is not None
    cases = {
        "smooth_goodput>=0": score.smooth_goodput_tok_s,
        "smooth_goodput_censored_tok_s>0": score.smooth_goodput_censored_tok_s,
        " ttft_s.p99 <= 1e3 ": score.ttft_s.p99,
        "ttft_s.mean<1": score.ttft_s.mean,
        "requests==24": 24.0,
    }
    for text, expected in cases.items():
        assert parse_assertion(text).value(run.score) == expected


def test_any_percentile_can_be_asked_for(run: LoadRun) -> None:
    value = parse_assertion("user_idle_s.p75<=9").value(run.score)
    assert value == pytest.approx(float(np.percentile(run.score.each.idle_s, 75)))
    gaps = parse_assertion("tbt_s.p12.5<=9").value(run.score)
    assert gaps is not None
    assert gaps > 0


def test_bounds_are_compared_as_they_say(run: LoadRun) -> None:
    texts = ["requests>=24", "requests>24", "requests<=24", "requests<24", "requests==24"]
    found = check([parse_assertion(text) for text in texts], run.score, run="run")
    assert [one.is_held for one in found] == [True, False, True, False, True]


def test_an_undefined_number_fails_every_bound() -> None:
    one = parse_assertion("tpot_s.p50>=0")
    assert not one.holds(None)


def test_junit_counts_failures_and_errors(run: LoadRun) -> None:
    checked = check(
        [parse_assertion("requests>=1"), parse_assertion("requests<1")], run.score, run="a & b"
    )
    suite = ET.fromstring(junit_xml(checked, problems=["sends were <late>"]))[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    failed = [case.get("name") for case in suite if case.find("failure") is not None]
    assert failed == ["requests<1"]
    assert suite[0].get("classname") == "a & b"
