"""The experiment on elastic roles: same arrivals, own best ratio, fair verdicts."""

from __future__ import annotations

from readahead.sim.experiments.experiment import Row, Scope, Verdict
from readahead.sim.experiments.intervals import where
from readahead.sim.experiments.roles import EXPERIMENT
from readahead.sim.experiments.roles_cells import (
    COLOCATED,
    ELASTIC,
    SHAPES,
    STATIC,
    TUNING_SEED,
    cluster,
)
from readahead.sim.experiments.roles_pages import claims, compared
from readahead.sim.experiments.runner import run_cells


def made_up(capacities: dict[str, float]) -> list[Row]:
    """Attainment that falls from 1 to 0.8 between two loads, a tenth of the way at capacity."""
    return [
        {
            "scenario": "chat", "kind": "reading", "shape": shape, "load": load, "seed": seed,
            "rate_req_s": 10 * load + seed, "attained_reading": share, "f1_tok_s": 100.0,
            "idle_p99_s": 1.0, "taken_share": 0.5, "kept_share": 0.1,
        }
        for shape, capacity in capacities.items()
        for load, share in ((1.0, 1.0), (2.0, 0.9 - (capacity < 2) * 0.1), (3.0, 0.5))
        for seed in (0, 1, 2, TUNING_SEED)
    ]  # fmt: skip


def test_shapes_are_compared_from_the_same_arrivals() -> None:
    """A tiny run, from cells to a page: elastic roles take prompts, static ones do not."""
    every = EXPERIMENT.cells(Scope.TINY)
    heaviest = max(cell.number("load") for cell in every)
    cells = [cell for cell in every if cell.seed in (0, TUNING_SEED)]
    cells = [cell for cell in cells if cell.number("load") == heaviest]
    rows = run_cells(EXPERIMENT, cells, jobs=1, done=lambda: None)
    assert len({row["requests"] for row in where(rows, seed=0)}) == 1
    by_shape = {shape: where(rows, shape=shape) for shape in (COLOCATED, "1P3D", "1P3D, elastic")}
    assert all(row["unended"] == 0 for row in rows)
    assert all(row["taken_share"] == 1 for row in by_shape[COLOCATED])
    assert all(float(str(row["taken_share"])) < 0.1 for row in by_shape["1P3D"])
    assert all(float(str(row["taken_share"])) > 0.3 for row in by_shape["1P3D, elastic"])
    assert all(float(str(row["kept_share"])) > 0 for row in by_shape["1P3D, elastic"])
    findings = EXPERIMENT.conclude(rows)
    assert len(findings.claims) == 3
    assert findings.figures[0].png.startswith(b"\x89PNG")


def test_the_ratio_of_the_pools_is_chosen_on_another_seed() -> None:
    """Of each family the shape that carries most there; its rows are not reported."""
    (found,) = compared(made_up({COLOCATED: 2, "1P3D": 1, "2P2D": 2, "1P3D, elastic": 2}))
    assert found.best[STATIC] == "2P2D"
    assert found.best[ELASTIC] == "1P3D, elastic"
    assert TUNING_SEED not in found.seeds


def test_within_three_percent_is_enough_and_less_is_not() -> None:
    """Against colocated workers 0.97, against static pools as much."""

    def verdicts(elastic: float, static: float) -> list[Verdict]:
        rows = made_up({COLOCATED: 2, "2P2D": static, "1P3D, elastic": elastic})
        return [each.verdict for each in claims(compared(rows))]

    assert verdicts(2, 1) == [Verdict.REPRODUCED, Verdict.REPRODUCED, Verdict.NOT_RUN]
    assert verdicts(1, 2) == [Verdict.NOT, Verdict.NOT, Verdict.NOT_RUN]


def test_every_shape_is_a_cluster_of_four() -> None:
    """What differs is who may compute which prompt."""
    for shape in SHAPES.values():
        spec = cluster(shape)
        assert spec.prefill + spec.decode == 4
        assert spec.core.placement.roles == shape.placement.roles
    seeds = {cell.seed for cell in EXPERIMENT.cells(Scope.QUICK)} - {TUNING_SEED}
    assert len(seeds) >= 3
