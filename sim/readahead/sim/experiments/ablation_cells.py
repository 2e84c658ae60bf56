"""What the ablation runs: designs over the mechanisms, on four workloads near the capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from readahead.sim.experiments.ablation_design import column, design
from readahead.sim.experiments.ablation_factors import (
    COLOCATED,
    MACHINE,
    SPLIT,
    ablated,
    factors_of,
)
from readahead.sim.experiments.capacity_cells import MACHINES, TUNING_SEED, Arm, cluster, window
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_search import SHARE_MIN, highest, passed
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.capacity_world import Point
from readahead.sim.experiments.experiment import Cell, Row, Scope

STEP = 1.1
"""Between neighbouring rates of the search for a load."""
STEPS = (-16, 16)
"""Of the search, from a fifth of the first guess to some five times of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much a scope runs."""

    scenarios: Sequence[str]
    seeds: Sequence[int]
    share: float
    """Of the scenarios' windows."""
    shapes: Sequence[str] = (COLOCATED, SPLIT)
    factors_max: int = 16
    """Of each cluster, the first so many."""


SIZES = {
    Scope.FULL: Size(
        scenarios=("chat", "code", "mixed-thinking", "reasoning"), seeds=range(3), share=0.35
    ),
    Scope.QUICK: Size(scenarios=("chat", "code"), seeds=range(3), share=0.2),
    Scope.TINY: Size(
        scenarios=("code",), seeds=range(2), share=0.03, shapes=(COLOCATED,), factors_max=2
    ),
}


def cells(scope: Scope) -> list[Cell]:
    """A cell is all runs from the same arrivals: of one cluster, workload, promise and seed."""
    size = SIZES[scope]
    return [
        Cell(
            parameters={
                "shape": shape, "scenario": scenario, "kind": kind.value, "scope": scope.value
            },
            seed=seed,
        )
        for shape in size.shapes
        for scenario in size.scenarios
        for kind in Kind
        for seed in size.seeds
    ]  # fmt: skip


def runs(shape: str, scope: Scope) -> tuple[list[frozenset[str]], list[frozenset[str]]]:
    """The design, and each mechanism off alone; runs are those that are off in them."""
    names = factors_of(shape)[: SIZES[scope].factors_max]
    return design(names), [frozenset((name,)) for name in names]


def run_cell(cell: Cell) -> list[Row]:
    """All its runs."""
    shape, scenario = cell.text("shape"), cell.text("scenario")
    kind, scope = Kind(cell.text("kind")), Scope(cell.text("scope"))
    rate_req_s = load_req_s(shape, scenario, kind, scope)
    designed, single = runs(shape, scope)
    names = factors_of(shape)[: SIZES[scope].factors_max]
    rows = []
    for off in dict.fromkeys([*designed, *single]):
        tried = _Load(shape=shape, scenario=scenario, kind=kind, scope=scope)
        found = tried.run(off, rate_req_s, seed=cell.seed, is_patient=True)
        about = {column(name): name not in off for name in names}
        rows.append(cell.row(**about, is_designed=off in designed, rate_req_s=rate_req_s, **found))
    return rows


@cache
def load_req_s(shape: str, scenario: str, kind: Kind, scope: Scope) -> float:
    """The highest rate that the whole policy carries, on a seed that is not reported."""
    tried = _Load(shape=shape, scenario=scenario, kind=kind, scope=scope)
    guess = guess_req_s(MACHINE, scenario)

    def passes(step: int) -> bool:
        rate_req_s = guess * STEP**step
        row = tried.run(frozenset(), rate_req_s, seed=TUNING_SEED, is_patient=False)
        return passed(row, kind, SHARE_MIN)

    least, most = STEPS
    return guess * STEP ** max(least, highest(passes, 0, least=least, most=most))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """A workload on a cluster, under a promise."""

    shape: str
    scenario: str
    kind: Kind
    scope: Scope

    def run(self, off: frozenset[str], rate_req_s: float, *, seed: int, is_patient: bool) -> Row:
        scored = window(self.scenario, SIZES[self.scope].share)
        point = Point(
            spec=ablated(self.shape, off),
            told=self.kind,
            kinds=(self.kind,),
            window=scored,
            seed=seed,
            is_patient=is_patient,
        )
        sessions = recorded(MACHINE, self.scenario, seed).until(
            scored.end_s,
            rate_req_s=rate_req_s,
            kept_share=kept_share(MACHINE, self.scenario),
        )
        return point.numbers(sessions, whole=cluster(MACHINES[MACHINE], Arm(policy="vllm")))
