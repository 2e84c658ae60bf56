"""The experiments themselves, small: their laws, and what they conclude."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from readahead.cli.main import app
from readahead.core.reading.benefit import Form, benefit
from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.ruler.run import Run
from readahead.sim.experiments.experiment import Cell, Row, Scope, Verdict
from readahead.sim.experiments.intervals import number, where
from readahead.sim.experiments.pace import PACES_TOK_S
from readahead.sim.experiments.pace_frozen import monotonicity
from readahead.sim.experiments.page import PAGE, page, summary_page
from readahead.sim.experiments.registry import experiment
from readahead.sim.experiments.reproduce import present, reported_from, reproduce, summarise
from readahead.sim.experiments.runner import run_cells
from readahead.sim.experiments.served import AZURE, Served, azure_path
from readahead.sim.experiments.smooth_goodput import EXPERIMENT as SMOOTH
from readahead.sim.experiments.sweeps import capacity_req_s, column, curve, smooth
from readahead.sim.experiments.tricks_applied import delayed, stopping
from readahead.sim.experiments.tricks_threshold import thresholds
from readahead.sim.experiments.windows import Window, cut, gained

COMMITTED = Path(__file__).parents[3] / "experiments"
OURS = ("smooth-goodput", "chunked-prefill", "tricks", "pace")
SMALL = Window(start_s=4.0, last_s=8.0, end_s=10.0)
READS = ReadingCurve(pace_tok_s=5.0)
FORMS = (Form.F1, Form.F2, Form.F3, Form.F4)


@pytest.fixture(scope="module")
def busy() -> Run:
    """A server with more to do than it can."""
    server = Served(
        model="14B", data="ShareGPT", policy="vllm", rate_req_s=30.0, window=SMALL, seed=1
    )
    return server.lived().run


def test_nothing_after_the_window_changes_it(busy: Run) -> None:
    longer = Window(start_s=4.0, last_s=8.0, end_s=20.0)
    server = Served(
        model="14B", data="ShareGPT", policy="vllm", rate_req_s=30.0, window=longer, seed=1
    )
    assert gained(server.lived().run, SMALL) == gained(busy, SMALL)


def test_nobody_is_lost_at_the_end_of_a_run(busy: Run) -> None:
    server = Served(
        model="14B", data="ShareGPT", policy="vllm", rate_req_s=30.0, window=SMALL, seed=1
    )
    assert busy.requests == len(server.workload())


def test_slower_readers_never_lose(busy: Run) -> None:
    found = monotonicity(busy, SMALL, PACES_TOK_S)
    assert found["violations"] == 0
    assert found["comparisons"] > 1000


def test_a_false_law_of_paces_is_noticed(busy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    upside_down = "readahead.sim.experiments.pace_frozen.idle_at_pace_s"
    monkeypatch.setattr(
        upside_down, lambda run, ruler, *, pace_tok_s: np.full(run.requests, 100 / pace_tok_s**2)
    )
    assert monotonicity(busy, SMALL, PACES_TOK_S)["violations"] > 0


@pytest.fixture(scope="module")
def full() -> tuple[Run, Window]:
    """A server that is just full, long enough for answers to end."""
    window = Window(start_s=2.0, last_s=20.0, end_s=40.0)
    server = Served(
        model="14B", data="ShareGPT", policy="vllm", rate_req_s=18.0, window=window, seed=1
    )
    return server.lived().run, window


def test_stopping_is_what_trying_every_token_finds(full: tuple[Run, Window]) -> None:
    run, window = full
    seen = cut(run, window.end_s)
    chosen = seen.where((seen.arrivals_s >= window.start_s) & seen.ended_normally)
    few = chosen.where(np.arange(chosen.requests) % (chosen.requests // 25) == 0)
    better = dict.fromkeys(FORMS, 0)
    for timeline in few.timelines():
        waits_s = [
            idle_s(replace(timeline, token_times_s=timeline.token_times_s[:tokens]), READS)
            for tokens in range(1, timeline.tokens + 1)
        ]
        for form in FORMS:
            worth = [
                benefit(form, waited_s, tokens=tokens, pace_tok_s=5.0, alpha=2.5)
                for tokens, waited_s in enumerate(waits_s, start=1)
            ]
            better[form] += max(0.0, *worth) > worth[-1] + 1e-9
    found = stopping(few, window, forms=FORMS, alpha=2.5)
    assert {found[f"stop_share_{form.value.lower()}"] for form in FORMS} != {0.0}
    for form in FORMS:
        expected = better[form] / few.requests
        assert found[f"stop_share_{form.value.lower()}"] == pytest.approx(expected)


def test_delaying_does_nobody_good(full: tuple[Run, Window]) -> None:
    run, window = full
    found = delayed(run.where(np.arange(run.requests) % 4 == 0), window)
    assert found["delay_idle_improved"] == 0
    assert (found["delay_benefit_change"] or 0) <= 0
    assert (found["delayed_tbt_met"] or 0) > (found["honest_tbt_met"] or 0)


def test_the_rate_not_to_serve_below_is_the_formulas() -> None:
    found = {(one.form, one.tokens): one for one in thresholds(2.5)}
    assert found["F1", 1000].found_tok_s == pytest.approx(12.5 * 5 / 17.5, rel=0.01)
    assert found["F2", 1000].found_tok_s == pytest.approx(1 / (1 / 2.5 + 1 / 5), rel=0.01)
    assert found["F4", 1000].found_tok_s == 0.0
    assert found["F4", 1000].formula_tok_s is None


def sweep(values: dict[float, float], *, spread: float = 0.0) -> list[Row]:
    """Rows of a made sweep with two seeds."""
    return [
        {
            "rate_req_s": rate,
            "seed": seed,
            "throughput_tok_s": value + seed * spread,
            "f1_literal": 0.0,
        }
        for rate, value in values.items()
        for seed in (0, 1)
    ]


def test_a_peak_is_inside_only_with_lower_ends() -> None:
    of = smooth("f1", "literal", 2.5)
    assert curve(sweep({1: 50, 2: 100, 3: 90}), of).is_interior()
    assert not curve(sweep({1: 50, 2: 100, 3: 96}), of).is_interior()
    assert not curve(sweep({1: 50, 2: 90, 3: 100}), of).is_interior()
    assert not curve(sweep({1: 100, 2: 90, 3: 50}), of).is_interior()
    assert curve(sweep({1: 50, 2: 100, 3: -20}), of).peak_req_s == 2


def test_capacity_lies_between_the_loads() -> None:
    rows = sweep({1: 1.0, 2: 1.0, 3: 0.8})
    assert capacity_req_s(rows, "throughput_tok_s") == pytest.approx(2.5)
    assert capacity_req_s(sweep({1: 0.5, 2: 1.0}), "throughput_tok_s") == 0.0
    assert capacity_req_s(sweep({1: 1.0, 2: 0.95}), "throughput_tok_s") == 2
    assert np.isnan(column("absent")(rows[0]))


def made_sweep(per_s_over: float) -> list[Row]:
    """A server that makes 100 tokens per request up to 10 requests/s, and queues beyond."""
    rows: list[Row] = []
    for rate in (4.0, 7.0, 9.0, 10.0, 11.0, 15.0, 20.0):
        for seed in range(5):
            made = 100 * min(rate, 10.0) + seed
            waits = max(0.0, rate - 9.0) * per_s_over
            row: Row = {"model": "8B", "data": "ShareGPT", "policy": "vllm", "rate_req_s": rate}
            row |= {"seed": seed, "throughput_tok_s": made}
            row |= {f"{form}_{kind}": waits for form in ("f1", "f2")
                    for kind in ("literal", "censored")}  # fmt: skip
            for name in ("tbt", "tpot", "reading"):
                row |= {f"goodput_{name}_tok_s": made, f"attained_{name}": 1.0 if rate < 10 else 0}
            rows.append(row)
    return rows


def test_a_best_load_is_found_where_there_is_one() -> None:
    verdicts = [claim.verdict for claim in SMOOTH.conclude(made_sweep(80.0)).claims]
    assert verdicts == [Verdict.REPRODUCED] * 4


def test_a_best_load_is_not_found_where_there_is_none() -> None:
    claims = SMOOTH.conclude(made_sweep(0.0)).claims
    assert [claim.verdict for claim in claims[:2]] == [Verdict.NOT] * 2


@pytest.mark.parametrize("name", OURS)
def test_a_tiny_run_ends_in_a_page(name: str, tmp_path: Path) -> None:
    reported = reproduce(experiment(name), Scope.TINY, tmp_path, jobs=1)
    text = (tmp_path / name / PAGE).read_text(encoding="utf-8")
    assert text.startswith(f"# {reported.experiment.title}\n")
    assert "nan" not in text
    for figure in reported.findings.figures:
        assert figure.png.startswith(b"\x89PNG")


@pytest.mark.slow  # two new processes import all of it
def test_processes_change_nothing() -> None:
    tried = experiment("pace")
    cells = tried.cells(Scope.TINY)
    alone = run_cells(tried, cells, jobs=1, done=lambda: None)
    assert run_cells(tried, cells, jobs=2, done=lambda: None) == alone
    blind = where(alone, policy="vllm", seed=0)
    assert [row["scored_pace_tok_s"] for row in blind] == list(PACES_TOK_S)
    lost = [number(row, "f1_literal") for row in blind]
    assert lost == sorted(lost)


def test_without_the_trace_its_cells_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("READAHEAD_DATA", str(tmp_path))
    assert azure_path() is None
    data = {cell.text("data") for cell in SMOOTH.cells(Scope.FULL)}
    assert data == {"ShareGPT", "long"}
    with pytest.raises(FileNotFoundError, match="READAHEAD_DATA"):
        Served(
            model="8B", data=AZURE, policy="vllm", rate_req_s=1.0, window=SMALL, seed=0
        ).workload()


def test_full_scopes_have_five_seeds() -> None:
    for name in OURS:
        cells = experiment(name).cells(Scope.FULL)
        assert {cell.seed for cell in cells} >= set(range(5))
        assert len(set(map(_key, cells))) == len(cells)


def _key(cell: Cell) -> tuple[object, ...]:
    return (*sorted(cell.parameters.items(), key=lambda item: item[0]), cell.seed)


def test_committed_pages_are_what_their_rows_say() -> None:
    for name in present(COMMITTED):
        reported = reported_from(experiment(name), COMMITTED)
        assert (COMMITTED / name / PAGE).read_text(encoding="utf-8") == page(reported), name
        for figure in reported.findings.figures:
            assert (COMMITTED / name / figure.file).exists()


def test_the_committed_summary_is_what_the_rows_say(tmp_path: Path) -> None:
    every = [reported_from(experiment(name), COMMITTED) for name in present(COMMITTED)]
    if not every:
        assert not (COMMITTED / PAGE).exists()
        return
    committed = (COMMITTED / PAGE).read_text(encoding="utf-8")
    for line in summary_page(every).splitlines():
        assert line in committed
    assert summarise(tmp_path) == []


def test_the_command_knows_its_experiments() -> None:
    found = CliRunner().invoke(app, ["reproduce", "--only", "nope"])
    assert found.exit_code == 2
    assert "smooth-goodput" in re.sub(r"[\s│]+", "", found.output)


def test_the_command_makes_pages_from_rows(tmp_path: Path) -> None:
    reproduce(experiment("pace"), Scope.TINY, tmp_path, jobs=1)
    (tmp_path / "pace" / PAGE).unlink()
    found = CliRunner().invoke(app, ["reproduce", "--pages-only", "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    assert (tmp_path / "pace" / PAGE).exists()
    assert "frozen timelines" in (tmp_path / PAGE).read_text(encoding="utf-8")
