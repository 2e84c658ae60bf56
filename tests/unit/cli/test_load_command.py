"""Flags of `readahead load` and `readahead compare`: what they mean, and which are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from load_samples import SampleRun
from typer.testing import CliRunner

from readahead.cli.load_build import load_settings, workload_of
from readahead.cli.load_options import Endpoint, TargetArguments, WorkloadArguments
from readahead.cli.main import app
from readahead.loadgen.load_offer import Target, make_offer
from readahead.loadgen.load_plain import PlainSpec
from readahead.loadgen.load_settings import Outputs
from readahead.workload.arrivals import ClosedLoop, GammaArrivals, PoissonArrivals
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.spec import WorkloadSpec as SessionSpec

WORDS = Target(takes_ids=False, model_path=None)
TOML = """
seed = 5
arrivals = "gamma:rate=4,cv=2"
limits = {sessions = 20}

[[mix]]
scenario = "chatbot"
"""


def what(**given: Any) -> WorkloadArguments:
    """Flags, the others at their defaults."""
    defaults: dict[str, Any] = dict.fromkeys(
        ("rate", "workload", "length_scale", "trace", "time_scale", "closed_loop", "requests",
         "duration_s", "seed")
    )  # fmt: skip
    texts = dict.fromkeys(
        ("arrivals", "scenario", "trace_format", "prompt_tokens", "output_tokens"), ""
    )
    return WorkloadArguments(**{**defaults, **texts, **given})


HOW = TargetArguments(
    model="",
    model_path=None,
    endpoint=Endpoint.COMPLETIONS,
    concurrency_max=10,
    timeout_s=10.0,
    pace=None,
    ignore_eos=True,
    ca=None,
    zero_load_ttft="",
    slo="",
)


def test_without_flags_it_is_a_hundred_poisson_requests() -> None:
    found = workload_of(what())
    assert isinstance(found, PlainSpec)
    assert (found.requests, found.rate_req_s, found.seed) == (100, 1.0, 0)
    offer = make_offer(found, WORDS, pace_tok_s=None)
    assert (offer.requests, offer.rate_req_s, offer.closed_users) == (100, 1.0, None)


def test_arrivals_of_other_kinds() -> None:
    found = workload_of(what(arrivals="gamma:rate=4,cv=2", requests=50, seed=3))
    assert isinstance(found, PlainSpec)
    assert found.arrivals == GammaArrivals(rate_req_s=4, cv=2)
    offer = make_offer(found, WORDS, pace_tok_s=None)
    assert offer.rate_req_s == 4
    assert len(offer.sessions) == 50
    again = make_offer(found, WORDS, pace_tok_s=None)
    assert list(offer.sessions) == list(again.sessions)


def test_the_rate_may_stand_apart() -> None:
    found = workload_of(what(arrivals="gamma:cv=2", rate=3.0))
    assert isinstance(found, PlainSpec)
    assert found.arrivals == GammaArrivals(rate_req_s=3, cv=2)


def test_a_closed_loop_is_labelled() -> None:
    settings = load_settings("http://h", what(closed_loop=7), HOW, outputs=Outputs())
    assert isinstance(settings.workload, PlainSpec)
    assert settings.workload.arrivals == ClosedLoop(concurrency=7)
    assert "not an open load" in str(settings.description["workload_summary"])
    offer = make_offer(settings.workload, WORDS, pace_tok_s=None)
    assert (offer.closed_users, offer.rate_req_s) == (7, None)


def test_a_scenario_has_readers_and_promises() -> None:
    found = workload_of(what(scenario="mixed", rate=2.0, requests=30, length_scale=0.1))
    assert isinstance(found, SessionSpec)
    assert found.arrivals == PoissonArrivals(rate_req_s=2.0)
    offer = make_offer(found, WORDS, pace_tok_s=None)
    assert len({session.reader.pace_tok_s for session in offer.sessions}) > 1
    assert all(turn.slo is not None for one in offer.sessions for turn in one.turns)
    assert len({session.scenario for session in offer.sessions}) > 1
    segment = offer.sessions[0].turns[0].segments[0]
    assert offer.texts(segment) == offer.texts(segment)


def test_a_workload_file_and_what_overrides_it(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(TOML)
    found = workload_of(what(workload=path, rate=8.0, seed=6, requests=3))
    assert isinstance(found, SessionSpec)
    assert found.arrivals == GammaArrivals(rate_req_s=8.0, cv=2)
    assert (found.seed, found.limits.sessions) == (6, 3)


def test_a_trace_is_replayed_faster(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n0,10,5\n1,20,6\n4,30,7\n")
    found = workload_of(what(trace=path, time_scale=2.0))
    assert isinstance(found, SessionSpec)
    assert isinstance(found.arrivals, TraceArrivals)
    offer = make_offer(found, WORDS, pace_tok_s=None)
    assert [one.arrival_s for one in offer.sessions] == pytest.approx([0, 0.5, 2])
    assert [one.turns[0].output_tokens for one in offer.sessions] == [5, 6, 7]


REFUSED = {
    "--scenario nope": "chatbot",
    "--rate 0": "--rate must be positive",
    "--rate -1": "--rate must be positive",
    "--rate nan": "--rate must be positive",
    "--arrivals wild:rate=3": "no arrivals are called 'wild'",
    "--arrivals gamma:rate=0,cv=1": "must be a rate above 0",
    "--arrivals gamma:rate=1,cv=1 --closed-loop 3": "do not go together",
    "--scenario chatbot --prompt-tokens 5": "lengths of their own",
    "--time-scale 2": "--trace",
    "--length-scale 2": "--scenario",
    "--closed-loop 0": "concurrency",
    "--sweep 4:1:3": "must ascend",
    "--sweep 1,2 --closed-loop 3": "no one rate",
    "--assert speed>=3": "no metric is called",
    "--assert ttft_s<=3": "is a distribution",
    "--zero-load-ttft fast": "0.0001*tokens",
    "--slo ttft=1": "--slo",
    "--target ftp://host": "a target is",
    "--prompt-tokens 0": "tokens",
    "--html /nowhere/at/all.html": "does not exist",
    "--trace /nowhere": "does not exist",
}


@pytest.mark.parametrize("flags", REFUSED)
def test_wrong_usage_is_2_and_says_why(flags: str) -> None:
    found = CliRunner().invoke(app, ["load", *flags.split()], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert REFUSED[flags] in re.sub(r"[\s│]+", " ", found.output)


def test_a_malformed_workload_names_file_and_key(tmp_path: Path) -> None:
    path = tmp_path / "w.toml"
    path.write_text(TOML.replace("cv=2", "cv=-2"))
    found = CliRunner().invoke(app, ["load", "--workload", str(path)], env={"COLUMNS": "300"})
    assert found.exit_code == 2
    assert "w.toml" in found.output
    assert "arrivals.cv" in found.output


def test_compare_reads_records(tmp_path: Path) -> None:
    files = []
    for name, slowness in (("old", 1.0), ("new", 2.0)):
        for seed in range(2):
            path = SampleRun(seed=seed, slowness=slowness).write(tmp_path / f"{name}{seed}.jsonl")
            files += ["--records", f"{name}={path}"]
    page = tmp_path / "page.html"
    found = CliRunner().invoke(app, ["compare", *files, "--html", str(page)])
    assert found.exit_code == 0, found.output
    assert "ratios to old" in found.output
    assert "old against new" in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "must be given"),
        (["http://a"], "two targets or more"),
        (["x=http://a", "x=http://b"], "two targets are called"),
        (["http://a", "ftp://b"], "a target is"),
        (["--records", "/nowhere"], "as many records"),
    ],
)
def test_wrong_comparisons(words: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["compare", *words], env={"COLUMNS": "200"})
    assert found.exit_code == 2
    assert said in re.sub(r"[\s│]+", " ", found.output)
