"""Workload files, good and bad."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from repo_tree import ROOT

from readahead.workload.arrivals import BurstArrivals, ClosedLoop, GammaArrivals
from readahead.workload.arrivals_kinds import KINDS, parse_arrivals
from readahead.workload.arrivals_rates import CurveArrivals, StepArrivals
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.plan import plan
from readahead.workload.sessions_file import read_sessions
from readahead.workload.spec import read_workload_spec, workload_spec
from readahead.workload.spec_problems import WorkloadError
from readahead.workload.traces.formats import TraceFormat

PAGE = ROOT / "docs" / "reference" / "workload-file.md"
CODER = {"scenario": "coder"}
LIMITS = {"sessions": 10}


def test_the_documented_file_is_one(tmp_path: Path) -> None:
    """The page's example is read and planned, and each part has sessions."""
    block = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    path = tmp_path / "workload.toml"
    path.write_text(block[1], encoding="utf-8")
    spec = read_workload_spec(path)
    assert spec.arrivals == GammaArrivals(rate_req_s=4, cv=2)
    assert spec.mix[2].arrivals == BurstArrivals(rate_req_s=0.5, mean_batch=5)
    sessions = list(plan(spec))
    assert {(session.tenant, session.scenario) for session in sessions} == {
        ("acme", "chatbot"),
        ("acme", "tool-calling"),
        ("globex", "coder (lengths x0.1, prompt <= 3000)"),
    }
    assert len(sessions) == 1000
    assert sessions[-1].arrival_s <= 300


def test_the_page_lists_every_kind_and_format() -> None:
    """Each has its row."""
    text = PAGE.read_text(encoding="utf-8")
    for name in (*KINDS, *TraceFormat):
        assert f"| `{name}` |" in text


def test_short_forms() -> None:
    """A kind and its keys without units."""
    assert parse_arrivals("gamma:rate=4,cv=2") == GammaArrivals(rate_req_s=4, cv=2)
    assert parse_arrivals("gamma: rate_req_s = 4, cv = 2") == GammaArrivals(rate_req_s=4, cv=2)
    assert parse_arrivals("steps:rates=1/2/4,step=60") == StepArrivals(
        rates_req_s=(1, 2, 4), step_s=60
    )
    assert parse_arrivals("curve:at=0/5,rates=1/0,repeats=true") == CurveArrivals(
        at_s=(0, 5), rates_req_s=(1, 0), repeats=True
    )
    assert parse_arrivals("trace:path=a/b.csv,start=5,format=azure") == TraceArrivals(
        path=Path("a/b.csv"), start_s=5, format=TraceFormat.AZURE
    )
    assert parse_arrivals("closed:concurrency=8") == ClosedLoop(concurrency=8)


RATES = ("0", "-1", "nan", "inf")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (f"{kind}:rate={rate}{rest}", "arrivals.rate_req_s must be a rate above 0 and finite")
            for kind, rest in (
                ("poisson", ""),
                ("gamma", ",cv=1"),
                ("weibull", ",cv=1"),
                ("bursts", ""),
                ("trace", ",path=x"),
            )
            for rate in RATES
        ),
        *((f"gamma:rate=1,cv={cv}", "arrivals.cv must be above 0 and finite") for cv in RATES),
        ("weibull:rate=1,cv=50", "arrivals.cv must be in [0.01, 20]"),
        ("bursts:rate=1,mean_batch=0.5", "arrivals.mean_batch must be in [1, 1e6]"),
        *((f"steps:rates=1/{rate},step=1", "at least 0 and finite") for rate in RATES[1:]),
        ("steps:rates=0/0,step=1", "must have a rate above 0"),
        ("steps:rates=1,step=0", "arrivals.step_s must be above 0"),
        ("ramp:from=1,to=0,over=5", "arrivals.to_req_s must have a rate above 0"),
        ("ramp:from=-1,to=1,over=5", "arrivals.from_req_s must be rates of at least 0"),
        ("ramp:from=1,to=2,over=nan", "arrivals.over_s must be above 0"),
        ("curve:at=0/2/1,rates=1/1/1", "arrivals.at_s must ascend from 0"),
        ("curve:at=0,rates=1", "two at least"),
        ("markov:rates=1/2,dwells=1", "arrivals.dwells_s must have one time per rate"),
        ("markov:rates=1/2,dwells=1/0", "arrivals.dwells_s must be above 0"),
        ("trace:path=x,start=5,end=5", "arrivals.end_s must be above arrivals.start_s = 5"),
        ("trace:path=x,spread=-1", "arrivals.spread_s must be above 0"),
        ("trace:path=x,format=csv", "format: Input should be 'azure'"),
        ("closed:concurrency=0", "arrivals.concurrency must be in [1, 1000000]"),
        ("gamma:rate=4", "cv must be set"),
        ("gamma:rate=4,cw=2", "gamma takes rate=, cv= and not 'cw=2'"),
        ("gamma:4", "gamma takes rate=, cv= and not '4'"),
        ("poisson:rate=x", "Input should be a valid number"),
        ("uniform:rate=4", "no arrivals are called 'uniform'; known: poisson, gamma"),
    ],
)
def test_bad_arrivals_are_refused(text: str, said: str) -> None:
    """The message says what was expected."""
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_arrivals(text)


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"mix": []}, "mix must have at least one part"),
        ({}, "mix must be set"),
        ({"mix": [CODER]}, "arrivals must be set"),
        ({"mix": [CODER], "arrivals": "poisson:rate=1"}, "limits.sessions or limits.duration_s"),
        (
            {"mix": [CODER], "arrivals": "curve:at=0/1,rates=1/1,repeats=true"},
            "arrivals are endless",
        ),
        ({"mix": [CODER], "arrivals": "closed:concurrency=2"}, "limits.sessions must be set"),
        ({"mix": [{**CODER, "arrivals": "closed:concurrency=2"}]}, "mix[0].arrivals.kind must be"),
        (
            {"mix": [{**CODER, "arrivals": "steps:rates=1,step=9"}], "arrivals": "poisson:rate=1"},
            "arrivals must not be set",
        ),
        ({"mix": [CODER], "arrivals": {"kind": "gama"}}, "arrivals.kind must be one of 'poisson'"),
        ({"mix": [CODER], "arrivals": {"rate_req_s": 1}}, "arrivals.kind must be set"),
        (
            {"mix": [CODER], "arrivals": {"kind": "poisson", "rate": 1}},
            "arrivals.rate is an unknown key",
        ),
        ({"mix": [{"scenario": "chat"}], "arrivals": "poisson:rate=1"}, "got 'chat'"),
        ({"mix": [{**CODER, "share": 0}]}, "mix[0]: share must be above 0"),
        ({"mix": [{**CODER, "users": 0}]}, "mix[0]: users must be in [1, inf]"),
        ({"mix": [{**CODER, "tenant": ""}]}, "mix[0]: tenant must not be empty"),
        ({"mix": [{**CODER, "sharing": 1}]}, "mix[0].sharing is an unknown key"),
        ({"mix": [{**CODER, "parameters": {"foo": 1}}]}, "coder has no parameter 'foo'"),
        (
            {"mix": [{"scenario": "trace", "parameters": {"lengths": 1}}]},
            "trace has no parameter 'lengths'",
        ),
        (
            {"mix": [{"scenario": "trace"}], "arrivals": "poisson:rate=1", "limits": LIMITS},
            "mix[0] takes lengths of a trace, so arrivals must be one",
        ),
        ({"mix": [CODER], "limits": {"sessions": 0}}, "limits.sessions must be in [1, inf]"),
        ({"mix": [CODER], "limits": {"duration_s": 0}}, "limits.duration_s must be above 0"),
        ({"mix": [CODER], "sed": 1}, "sed is an unknown key"),
    ],
)
def test_bad_specs_are_refused(tree: Mapping[str, object], said: str) -> None:
    """The message names the key."""
    with pytest.raises(WorkloadError, match=re.escape(said)):
        workload_spec(tree)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """Absent, not TOML, a bad key: the file is named."""
    path = tmp_path / "workload.toml"
    with pytest.raises(WorkloadError, match=r"workload\.toml: cannot be read"):
        read_workload_spec(path)
    path.write_text("seed = ?\n", encoding="utf-8")
    with pytest.raises(WorkloadError, match=r"workload\.toml: is not TOML: .*line 1"):
        read_workload_spec(path)
    path.write_text("sed = 1\n[[mix]]\nscenario = 'coder'\n", encoding="utf-8")
    with pytest.raises(WorkloadError, match=r"workload\.toml: sed is an unknown key"):
        read_workload_spec(path)
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(WorkloadError, match=r"workload\.toml, line 1: expected a session"):
        list(read_sessions(path))
    with pytest.raises(WorkloadError, match="cannot be read"):
        list(read_sessions(tmp_path / "absent"))
