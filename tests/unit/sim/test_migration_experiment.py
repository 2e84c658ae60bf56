"""The migration experiment: its worlds, and what it concludes from rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.sim.experiments.experiment import Row, Scope, Verdict
from readahead.sim.experiments.intervals import number
from readahead.sim.experiments.migration_cells import (
    LOADS,
    RULES,
    SITUATIONS,
    TUNING_SEEDS,
    cells,
    fleet,
)
from readahead.sim.experiments.migration_claims import claims
from readahead.sim.experiments.migration_compared import compared
from readahead.sim.experiments.migration_tables import figure, tables
from readahead.sim.experiments.ranking_fleet import Drain, Fleet
from readahead.sim.experiments.windows import Window
from readahead.sim.settings import ClusterSettings

WINDOW = Window(start_s=1.0, last_s=4.0, end_s=6.0)


def small(**changes: object) -> Fleet:
    settings = ClusterSettings(profile="llama-3.1-8b-a100-80g", decode=2, link="infiniband")
    workload = {"mix": [{"scenario": "chatbot"}], "arrivals": "poisson:rate=8"}
    return replace(Fleet(settings=settings, workload=workload, window=WINDOW, seed=3), **changes)  # type: ignore[arg-type]


def row(situation: str, rule: str, seed: int, **found: float) -> Row:
    usual = {"moves": 0.0, "preemptions": 0.0, "idle_p99_s": 1.0, "ttft_p99_s": 1.0}
    usual |= {"attained_slo": 0.9, "attained_reading": 0.9}
    usual |= dict.fromkeys(("f1_literal", "f1_censored", "f2_literal", "f2_censored"), 1000.0)
    return {"situation": situation, "rule": rule, "seed": seed, **usual, **found}


def rows(moves: dict[str, float], **need: float) -> list[Row]:
    """One situation in which all are alike but for their moves, and for what `need` has."""
    found = []
    for rule in RULES:
        for seed in (0, 1, 2, *(TUNING_SEEDS if rule in LOADS else ())):
            own = need if rule == "need" else {}
            found.append(row("slow-15", rule, seed, moves=moves.get(rule, 0.0), **own))
    return found


def test_a_slow_worker_makes_its_readers_wait_longer() -> None:
    usual, slowed = small(), small(slow={"decode-00": 3.0})
    assert number(slowed.numbers(), "idle_mean_s") > number(usual.numbers(), "idle_mean_s")


def test_an_unknown_slow_worker_is_refused() -> None:
    with pytest.raises(ValueError, match="no worker decode-07"):
        small(slow={"decode-07": 2.0}).numbers()


def test_moves_empty_a_drained_worker_sooner() -> None:
    drain = Drain(worker="decode-01", at_s=3.0)
    stays = small(drain=drain, migration={"trigger": "none"}).numbers()
    moves = small(drain=drain, migration={"trigger": "need"}).numbers()
    assert number(stays, "moves") == 0 < number(moves, "moves")
    assert number(moves, "emptied_s") < number(stays, "emptied_s")


def test_all_rules_see_the_same_requests() -> None:
    found = [small(migration=rule).numbers()["requests"] for rule in RULES.values()]
    assert len(set(found)) == 1


def test_a_cell_comes_out_the_same_again() -> None:
    cell = cells(Scope.TINY)[0]
    assert fleet(cell).numbers() == fleet(cell).numbers()


def test_every_situation_has_every_rule_on_five_seeds() -> None:
    every = cells(Scope.FULL)
    for name in SITUATIONS:
        for rule in RULES:
            seeds = {
                one.seed
                for one in every
                if one.parameters["situation"] == name and one.parameters["rule"] == rule
            }
            assert len(seeds - set(TUNING_SEEDS)) >= 5
            assert (set(TUNING_SEEDS) <= seeds) == (rule in LOADS)


def test_fewer_moves_at_equal_quality_are_a_finding() -> None:
    found = compared(rows({"load 512": 100, "load 4096": 100, "load 32768": 100, "need": 60}))
    assert claims(found)[0].verdict is Verdict.REPRODUCED


@pytest.mark.parametrize("worse", [{"f2_literal": 900.0}, {"idle_p99_s": 2.0}])
def test_fewer_moves_that_cost_are_none(worse: dict[str, float]) -> None:
    moved = {"load 512": 100.0, "load 4096": 100.0, "load 32768": 100.0, "need": 60.0}
    assert claims(compared(rows(moved, **worse)))[0].verdict is Verdict.NOT


def test_a_quarter_fewer_is_not_enough() -> None:
    moved = {"load 512": 100.0, "load 4096": 100.0, "load 32768": 100.0, "need": 75.0}
    assert claims(compared(rows(moved)))[0].verdict is Verdict.NOT


def test_a_rival_that_never_moves_proves_nothing() -> None:
    assert claims(compared(rows({})))[0].verdict is Verdict.NOT_RUN


def test_the_load_trigger_has_the_knobs_that_were_best_on_tuning_seeds_alone() -> None:
    every = rows({"load 512": 5, "load 4096": 5, "load 32768": 5})
    for one in every:
        if one["rule"] == "load 4096" and one["seed"] in TUNING_SEEDS:
            one["f1_literal"] = 1100.0
        if one["rule"] == "load 512" and one["seed"] not in TUNING_SEEDS:
            one["f1_literal"] = 9000.0
    assert compared(every)[0].load == "load 4096"


def test_tables_and_figure_are_made_of_the_rows() -> None:
    found = compared(rows({"load 512": 100, "need": 10}))
    main, knobs = tables(found)[:2]
    assert len(main.rows) == len(RULES) - len(LOADS) + 1
    assert len(knobs.rows) == len(LOADS)
    assert figure(found).startswith(b"\x89PNG")
