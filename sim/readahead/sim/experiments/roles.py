"""Elastic roles: do they make disaggregation as good as colocation?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.capacity_cells import MACHINES
from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope
from readahead.sim.experiments.roles_cells import MACHINE, cells, run
from readahead.sim.experiments.roles_pages import claims, compared, figure, notes, tables


@dataclass(frozen=True, slots=True)
class Roles:
    """Static pools, pools whose roles bend, and no pools."""

    name: str = "roles"
    title: str = "Elastic roles against static pools and colocated workers"
    asked: str = (
        "Static pools lose to colocated workers on four GPUs with an 8B model. Do they catch up "
        "once a decode worker takes prompts while its readers have text left, and a prefill "
        "worker goes on with an answer while its queue is short?"
    )
    set_up: Sequence[str] = (
        "Four A100-80G, Llama-3.1-8B, NVLink; the `readahead` policy in every engine of every "
        "shape, so that only the router's choice differs. Static pools and elastic roles at the "
        "ratio that carries most on a seed that is not reported, anew for each cell. Prefill "
        "workers take prompts as they come: in the router's line, the oldest goes first, and no "
        "engine can choose among those who wait there.",
        "Scenarios, sessions, windows and promises are those of the capacity experiment. Reading: "
        "at 5 tokens/s nobody ever waits longer than 1 s in all. Staged: the SLOs of the "
        "scenario. Engines are told the due times they are judged by. Nobody is rejected.",
        "Capacity: where the share of attained sessions crosses 90 %, straight between the loads "
        "that were run, for each seed: the loads are far apart, so that ratios say more than the "
        "numbers. The promises of all shapes are those of the colocated cluster.",
        "Smooth goodput (F1, alpha 2.5) of those who came in the window, at the heaviest load.",
    )
    profiles: Sequence[str] = (MACHINES[MACHINE].profile,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All shapes at all loads."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run in one row."""
        return [cell.row(**run(cell))]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Shape against shape."""
        found = compared(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="roles.png",
                    caption="Capacity over that of colocated workers from the same arrivals; bars "
                    "are 95 % intervals. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=notes(found),
        )


EXPERIMENT = Roles()
