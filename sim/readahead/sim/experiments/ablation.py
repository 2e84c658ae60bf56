"""Which of `readahead`'s mechanisms pay: each is switched off, alone and in a designed mix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.ablation_cells import SIZES, cells, run_cell
from readahead.sim.experiments.ablation_factors import (
    COLOCATED,
    DRAFT_STEP_S,
    DRAFT_TOKENS,
    FACTORS,
    HELD_PROMPTS,
    MACHINE,
    PREDICTABILITY,
    SHAPE_WORDS,
    SPLIT,
)
from readahead.sim.experiments.ablation_tables import Runs, claims, figure, tables
from readahead.sim.experiments.capacity_cells import MACHINES, SCENARIOS, TUNING_SEED
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope

FULL = SIZES[Scope.FULL]
SCENARIO_WORDS = {name: SCENARIOS[name].words for name in FULL.scenarios}
KIND_WORDS = {Kind.READING.value: "the reading SLO", Kind.STAGED.value: "the scenario's SLOs"}


@dataclass(frozen=True, slots=True)
class Ablation:
    """A two-level design over the mechanisms, and each of them off alone."""

    name: str = "ablation"
    title: str = "Which mechanisms pay"
    asked: str = (
        "What does each mechanism of `readahead` add to attainment under both promises, to smooth "
        "goodput and to the longest waits, alone and beside the others, and where is it useless or "
        "harmful?"
    )
    set_up: Sequence[str] = (
        f"{MACHINES[MACHINE].words}: {SHAPE_WORDS[COLOCATED]}; and {SHAPE_WORDS[SPLIT]}, for "
        "mechanisms that colocated workers do not need.",
        "Mechanisms, each on or off: "
        + ", ".join(factor.words for factor in FACTORS.values())
        + ". The design has all combinations up to four mechanisms, else 16 runs in which no "
        "mechanism is confounded with a pair of others (resolution IV or better); beside it each "
        "mechanism is off alone.",
        "Workloads, promises and judging are those of `capacity`: "
        + ", ".join(SCENARIO_WORDS.values())
        + f"; windows {FULL.share:.0%} as long. The policy is told the promise that it is judged "
        "by; smooth goodput and idle times are those of the runs under the reading SLO. Runs go "
        "on until everybody has his answer.",
        f"Loads: the highest that all mechanisms together carry on seed {TUNING_SEED} (90 % "
        "attained, a tail below 20 s), for each cluster, workload and promise; that seed is not "
        "reported.",
        f"Speculation: up to {DRAFT_TOKENS} tokens from a draft model of {1000 * DRAFT_STEP_S:g} "
        f"ms a step (assumed), right with probability {PREDICTABILITY.mean:g} ± "
        f"{PREDICTABILITY.spread:g} over answers. Migration: by need, between the two workers. "
        f"Late binding: the prefill worker holds {HELD_PROMPTS[1]} prompts, the rest wait in the "
        f"router; without it, it holds {HELD_PROMPTS[0]}.",
    )
    profiles: Sequence[str] = (MACHINES[MACHINE].profile,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """One for each cluster, workload, promise and seed."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """The whole design from the same arrivals."""
        return run_cell(cell)

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Effects, interactions, and where a mechanism does not pay."""
        found = Runs(rows)
        missing = [
            words
            for name, there in (
                ("shape", SHAPE_WORDS),
                ("scenario", SCENARIO_WORDS),
                ("kind", KIND_WORDS),
            )
            for value, words in there.items()
            if not any(row[name] == value for row in rows)
        ]
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="effects.png",
                    caption="What each mechanism adds to attainment, in percentage points, the "
                    "mean of all settings of the others. Bars are 95 % intervals. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                "Effects are differences from the same arrivals, seed by seed; intervals are over "
                "seeds, without correction for how many are looked at.",
                "A load at which the whole policy attains 90 % leaves room for either.",
                *([f"Not run here: {'; '.join(missing)}."] if missing else []),
            ),
        )


EXPERIMENT = Ablation()
