"""The ranking and the disaggregation experiment: same arrivals, own best knobs, fair verdicts."""

from __future__ import annotations

from readahead.sim.experiments.disaggregation import EXPERIMENT as SPLIT
from readahead.sim.experiments.disaggregation_cells import SHAPES
from readahead.sim.experiments.experiment import Cell, Row, Scope, Verdict
from readahead.sim.experiments.intervals import where
from readahead.sim.experiments.ranking import EXPERIMENT as RANKING
from readahead.sim.experiments.ranking_cells import (
    LEVELS,
    LOADS,
    REPORTED,
    RIVALS,
    TUNED,
    TUNING_SEEDS,
    best_arm,
    tuned_tok_s,
)
from readahead.sim.experiments.ranking_pages import claims, ranked, searched
from readahead.sim.experiments.runner import run_cells


def tiny_rows() -> list[Row]:
    return run_cells(RANKING, RANKING.cells(Scope.TINY), jobs=1, done=lambda: None)


def made_up(values: dict[str, float], *, level: str = LEVELS[2]) -> list[Row]:
    """A ranking of one cell, every seed alike but for a little noise that all share."""
    names = ("f1_literal", "f2_literal", "f1_censored", "attained_slo", "attained_reading",
             "ttft_p99_s", "idle_p99_s", "throughput_tok_s")  # fmt: skip
    return [
        {
            "part": REPORTED, "load": "code", "level": level, "rival": rival, "seed": seed,
            "arm": next(iter(RIVALS[rival])), **dict.fromkeys(names, value + seed),
        }
        for rival, value in values.items()
        for seed in range(5)
    ]  # fmt: skip


def test_the_ranking_runs_all_policies_from_the_same_arrivals() -> None:
    rows = tiny_rows()
    reported = where(rows, part=REPORTED)
    assert {row["rival"] for row in reported} == set(RIVALS)
    for seed in (0, 1):
        assert len({row["requests"] for row in where(reported, seed=seed)}) == 1
    for one in searched(rows):
        for row in where(reported, rival=one.rival, load=one.load):
            assert row["arm"] == one.best


def test_knobs_are_chosen_on_seeds_that_are_not_reported() -> None:
    cells = RANKING.cells(Scope.FULL)
    seeds = {part: {c.seed for c in cells if c.parameters["part"] == part}
             for part in (TUNED, REPORTED)}  # fmt: skip
    assert seeds[TUNED] == set(TUNING_SEEDS)
    assert not seeds[TUNED] & seeds[REPORTED]
    assert len(seeds[REPORTED]) >= 5


def test_the_search_takes_the_best_arm() -> None:
    found = best_arm("distserve", "code", Scope.TINY)
    values = {arm: tuned_tok_s("distserve", "code", arm, Scope.TINY) for arm in RIVALS["distserve"]}
    assert values[found] == max(values.values())


def test_the_full_ranking_has_three_loads_of_each_workload() -> None:
    levels: dict[object, set[object]] = {}
    for cell in RANKING.cells(Scope.FULL):
        if cell.parameters["part"] == REPORTED:
            levels.setdefault(cell.parameters["load"], set()).add(cell.parameters["level"])
    made = [name for name, load in LOADS.items() if len(load.rates_req_s) > 1]
    assert len(made) == 3
    assert all(levels[name] == set(LEVELS) for name in made)


def test_the_order_is_that_of_the_means() -> None:
    found = ranked(made_up({"vllm": 5.0, "sarathi": 9.0, "readahead": 7.0}))[0]
    assert found.order("f1_literal") == ["sarathi", "readahead", "vllm"]
    assert found.best_rival("f1_literal") == "sarathi"
    assert found.lead("f1_literal").value == -2.0


def test_a_lead_needs_an_interval_without_zero() -> None:
    ahead = ranked(made_up({"vllm": 5.0, "readahead": 7.0}))
    behind = ranked(made_up({"vllm": 9.0, "readahead": 7.0}))
    words = "is ahead of the best rival in smooth goodput under F1"

    def verdict(found: list[Row]) -> Verdict:
        return next(c.verdict for c in claims(ranked(found)) if words in c.finding)

    assert verdict(made_up({"vllm": 5.0, "readahead": 7.0})) is Verdict.REPRODUCED
    assert verdict(made_up({"vllm": 9.0, "readahead": 7.0})) is Verdict.NOT
    noisy = made_up({"vllm": 5.0, "readahead": 5.1})
    for row in noisy:
        if row["rival"] == "vllm" and row["seed"] in (0, 3):
            row["f1_literal"] = 30.0
    assert verdict(noisy) is Verdict.NOT
    assert len(ahead) == len(behind) == 1


def test_the_ranking_says_so_on_its_page() -> None:
    findings = RANKING.conclude(made_up({"vllm": 5.0, "sarathi": 9.0, "readahead": 7.0}))
    assert findings.claims[0].verdict is Verdict.NOT  # three policies are no six
    assert [row[1] for row in findings.tables[0].rows] == ["`sarathi`", "`readahead`", "`vllm`"]
    assert findings.figures[0].png.startswith(b"\x89PNG")


def test_disaggregation_compares_shapes_from_the_same_arrivals() -> None:
    cells = [cell for cell in SPLIT.cells(Scope.TINY) if cell.seed in (0, 101)]
    rows = run_cells(SPLIT, cells, jobs=1, done=lambda: None)
    assert {row["shape"] for row in rows} == set(SHAPES)
    assert len({row["requests"] for row in where(rows, seed=0)}) == 1
    findings = SPLIT.conclude(rows)
    assert len(findings.claims) == 4
    assert findings.figures[0].png.startswith(b"\x89PNG")


def test_links_are_compared_on_the_first_machine() -> None:
    linked = [
        cell
        for cell in SPLIT.cells(Scope.FULL)
        if str(cell.parameters["shape"]).endswith(("infiniband", "ethernet"))
    ]
    assert linked
    assert {cell.parameters["machine"] for cell in linked} == {"8B, A100"}
    assert all(isinstance(cell, Cell) for cell in linked)
