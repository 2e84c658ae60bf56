"""The search for a capacity: bisection, knobs, points that are kept, and the experiment's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.sim.experiments import capacity_kept as kept
from readahead.sim.experiments import capacity_search
from readahead.sim.experiments.capacity import EXPERIMENT
from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    SCENARIOS,
    SIX,
    SIZES,
    TUNING_SEED,
)
from readahead.sim.experiments.capacity_found import Capacities
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_rivals import (
    CLASSIC,
    rivals,
)
from readahead.sim.experiments.capacity_search import (
    CALM,
    FOUND,
    OVERLOAD,
    REPORTED,
    TUNED,
    Search,
    highest,
)
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.capacity_world import Point
from readahead.sim.experiments.experiment import Cell, Row, Scope, Verdict
from readahead.sim.experiments.intervals import number, where
from readahead.sim.experiments.runner import run_cells

MACHINE = "13B-A100"


@given(
    edge=st.integers(-40, 40), start=st.integers(-50, 50), least=st.integers(-30, 0),
    most=st.integers(0, 30),
)  # fmt: skip
def test_the_bisection_finds_the_edge(edge: int, start: int, least: int, most: int) -> None:
    tried: list[int] = []

    def passes(step: int) -> bool:
        tried.append(step)
        return step <= edge

    assert highest(passes, start, least=least, most=most) == min(max(edge, least - 1), most)
    assert len(tried) == len(set(tried)) <= 14
    assert all(least <= step <= most for step in tried)


@given(passing=st.sets(st.integers(-20, 20)), start=st.integers(-20, 20))
def test_without_order_it_still_ends_between_a_pass_and_a_fail(
    passing: set[int], start: int
) -> None:
    found = highest(lambda step: step in passing, start, least=-20, most=20)
    assert found == -21 or found in passing
    assert found == 20 or found + 1 not in passing


def test_a_bracket_next_to_the_last_one_costs_two_points() -> None:
    tried: list[int] = []

    def passes(step: int) -> bool:
        tried.append(step)
        return step <= 4

    highest(passes, 4, least=-9, most=9)
    assert tried == [4, 5]


def test_sessions_are_the_same_at_every_rate() -> None:
    share = kept_share(MACHINE, "code")
    slow, fast = (
        recorded(MACHINE, "code", 3).until(100.0, rate_req_s=rate, kept_share=share)
        for rate in (1.0, 2.0)
    )
    assert len(fast) > len(slow) > 50
    for one, other in zip(slow, fast, strict=False):
        assert one.turns == other.turns
        assert one.arrival_s == pytest.approx(2 * other.arrival_s)


def test_sessions_that_do_not_fit_the_context_are_left_out() -> None:
    assert 0.2 < kept_share(MACHINE, "code") < 0.9
    most = MACHINES[MACHINE].found.context_tokens_max
    for session in recorded(MACHINE, "code", 3).first(300):
        assert session.turns[0].own_tokens + session.turns[0].output_tokens <= most


def test_rates_are_what_they_say_after_some_were_left_out() -> None:
    share = kept_share(MACHINE, "summary")
    found = recorded(MACHINE, "summary", 3).until(500.0, rate_req_s=4.0, kept_share=share)
    assert len(found) / 500.0 == pytest.approx(4.0, rel=0.1)


def fake_points(monkeypatch: pytest.MonkeyPatch, *, capacity: Mapping[int, float]) -> list[Point]:
    """Replaces the simulator: of a load, the share beyond its capacity is missed."""
    run: list[Point] = []

    def numbers(self: Point, sessions: list[object], *, whole: object) -> Row:
        run.append(self)
        rate = len(sessions) / self.window.end_s
        share = min(1.0, 0.9 * capacity.get(self.seed, 4.0) / rate)
        shares = {f"attained_{kind}": share for kind in Kind}
        tails = {f"tail_{kind}_s": 0.0 for kind in Kind}
        return {**shares, **tails, "requests": len(sessions), "unended": 0, "is_cut": False,
                "f1_tok_s": 1.0, "idle_p99_s": 1.0, "actions": 100}  # fmt: skip

    monkeypatch.setattr(Point, "numbers", numbers)
    return run


def search(policy: str, folder: Path | None, scope: Scope = Scope.QUICK) -> list[Row]:
    return Search(machine=MACHINE, scenario="chat", policy=policy, scope=scope, folder=folder).run()


def test_the_capacity_lies_where_the_share_crosses_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guess = guess_req_s(MACHINE, "chat")
    fake_points(monkeypatch, capacity={0: guess, 1: 1.5 * guess})
    rows = where(search("sarathi", None), part=FOUND, kind="reading")
    found = {row["seed"]: number(row, "capacity_req_s") for row in rows}
    assert found[0] == pytest.approx(guess, rel=0.1)
    assert found[1] == pytest.approx(1.5 * guess, rel=0.1)


def test_knobs_are_chosen_on_a_seed_that_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_points(monkeypatch, capacity={})
    for policy, rival in rivals(MACHINES[MACHINE]).items():
        rows = search(policy, None)
        assert {row["seed"] for row in where(rows, part=REPORTED)} == {0, 1}
        if len(rival.arms) > 1:
            assert {row["seed"] for row in where(rows, part=TUNED)} == {TUNING_SEED}
            assert {row["arm"] for row in where(rows, part=TUNED)} == set(rival.arms)


def test_one_run_serves_both_promises_where_the_policy_sees_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_points(monkeypatch, capacity={})
    assert {row["told"] for row in where(search("vllm", None), part=REPORTED)} == {"reading"}
    told = {row["told"] for row in where(search("readahead", None), part=REPORTED)}
    assert told == {"reading", "staged"}


def test_a_search_goes_on_where_it_was_broken_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = fake_points(monkeypatch, capacity={})
    whole = search("andes", tmp_path)
    count = len(run)
    assert search("andes", tmp_path) == whole
    assert len(run) == count
    file = next(tmp_path.rglob("*.jsonl"))
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) == count
    broken = "\n".join(lines[:-2]) + "\n" + lines[-2][:20]
    file.write_text(broken, encoding="utf-8")
    assert search("andes", tmp_path) == whole
    assert len(run) == count + 2
    for line in lines:
        assert json.loads(line)["policy"] == "andes"


def test_other_code_keeps_its_own_points(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = fake_points(monkeypatch, capacity={})
    search("andes", tmp_path)
    count = len(run)
    monkeypatch.setattr(capacity_search, "fingerprint", lambda *_: "other")
    search("andes", tmp_path)
    assert len(run) == 2 * count


def test_points_follow_from_their_own_policy_and_the_world() -> None:
    def modules(policy: str) -> set[str]:
        return {path.stem for path in kept.modules(frozenset({policy}))}

    assert {"world", "engine", "kernel", "iteration", "sarathi"} <= modules("sarathi")
    assert not {"readahead", "andes", "slos_serve", "sacrifice"} & modules("sarathi")
    assert {"readahead", "slack"} <= modules("slack"), "what a policy is made of counts"
    marks = {kept.fingerprint(frozenset({one}), "arms") for one in ("sarathi", "andes")}
    marks.add(kept.fingerprint(frozenset({"sarathi"}), "other arms"))
    assert len(marks) == 3


def made_up(values: Mapping[str, float], *, scenarios: tuple[str, ...] = SIX) -> list[Row]:
    return [
        {
            "machine": MACHINE, "scenario": scenario, "policy": policy, "part": FOUND, "arm": "a",
            "kind": kind.value, "share_min": 0.9, "seed": seed,
            "capacity_req_s": value * (1 + 0.1 * seed),
        }
        for scenario in scenarios
        for policy, value in values.items()
        for kind in Kind
        for seed in range(5)
    ]  # fmt: skip


def test_ratios_are_over_the_best_rival_seed_by_seed() -> None:
    found = Capacities(rows=made_up({"vllm": 2.0, "sarathi": 3.0, "readahead": 4.5}))
    one = found.ratio((MACHINE, "chat"), "readahead", CLASSIC, Kind.READING)
    assert one is not None
    assert one.rival == "sarathi"
    assert one.value.value == pytest.approx(1.5)
    assert one.value.half == pytest.approx(0.0, abs=1e-12)
    geo = found.geo_mean(MACHINE, "readahead", CLASSIC, Kind.STAGED)
    assert geo is not None
    assert geo.value == pytest.approx(1.5)
    assert found.ratio((MACHINE, "chat"), "readahead", ("slos-serve",), Kind.READING) is None


def test_a_geo_mean_needs_all_six_scenarios() -> None:
    rows = made_up({"vllm": 2.0, "readahead": 3.0}, scenarios=SIX[:5])
    assert Capacities(rows=rows).geo_mean(MACHINE, "readahead", CLASSIC, Kind.READING) is None


@pytest.mark.parametrize(
    ("times", "verdict"), [(1.3, Verdict.REPRODUCED), (1.22, Verdict.PARTLY), (1.1, Verdict.NOT)]
)
def test_a_goal_is_reached_by_its_figure(times: float, verdict: Verdict) -> None:
    values = {**dict.fromkeys(CLASSIC, 2.0), "readahead": 2.0 * times}
    rows = made_up(values, scenarios=("chat",))
    claims = EXPERIMENT.conclude(rows).claims
    chat = next(one for one in claims if one.finding.startswith("chat: `readahead` over the best"))
    assert chat.verdict is verdict  # 1.25 by the reading SLO, 1.2 by the scenario's


def test_nothing_is_reached_over_a_part_of_the_rivals() -> None:
    rows = made_up({"vllm": 2.0, "readahead": 9.0}, scenarios=("chat",))
    chat = EXPERIMENT.conclude(rows).claims[0]
    assert chat.verdict is Verdict.NOT_RUN
    assert "without vllm-chunked, sarathi, distserve" in chat.ours


def test_the_page_says_what_was_not_run() -> None:
    rows = made_up({"vllm": 2.0, "readahead": 3.0}, scenarios=("chat",))
    notes = " ".join(EXPERIMENT.conclude(rows).notes)
    assert MACHINES["30B-A100"].words in notes
    assert "code in bursts" in notes
    assert "`sarathi` in chat" in notes
    assert "`vllm` in chat" not in notes


@pytest.mark.parametrize(("times", "verdict"), [(0.98, Verdict.REPRODUCED), (0.9, Verdict.NOT)])
def test_the_harm_guard_looks_at_every_cell(times: float, verdict: Verdict) -> None:
    claims = EXPERIMENT.conclude(made_up({"slack": 2.0, "readahead": 2.0 * times})).claims
    harm = next(one for one in claims if one.finding.startswith("Harm guard"))
    assert harm.verdict is verdict


def test_a_tiny_search_puts_all_policies_under_the_same_arrivals() -> None:
    cells = EXPERIMENT.cells(Scope.TINY)
    assert {cell.parameters["policy"] for cell in cells} == set(rivals(MACHINES[MACHINE]))
    few = {"vllm", "distserve", "readahead"}
    chosen = [cell for cell in cells if cell.parameters["policy"] in few]
    rows = run_cells(EXPERIMENT, chosen, jobs=1, done=lambda: None)
    for level in (CALM, OVERLOAD):
        for seed in (0, 1):
            every = where(rows, part=level, seed=seed)
            assert {row["policy"] for row in every} == few
            assert len({row["requests"] for row in every}) == 1
    findings = EXPERIMENT.conclude(rows)
    assert findings.figures[0].png.startswith(b"\x89PNG")
    assert len(findings.tables) == 4


def test_the_full_scope_has_six_scenarios_and_the_paper_s_models() -> None:
    cells = EXPERIMENT.cells(Scope.FULL)
    assert {cell.parameters["scenario"] for cell in cells} >= set(SIX)
    profiles = {MACHINES[str(cell.parameters["machine"])].profile for cell in cells}
    assert {name.rpartition("-a100")[0] for name in profiles} >= {"opt-6.7b", "opt-13b", "opt-30b"}
    assert any(name.endswith("h100") for name in profiles)
    assert len(SIZES[Scope.FULL].seeds) >= 5
    assert TUNING_SEED not in SIZES[Scope.FULL].seeds
    assert all(isinstance(cell, Cell) for cell in cells)
    assert set(SCENARIOS) >= set(SIX)
