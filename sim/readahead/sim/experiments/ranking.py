"""All policies by one ruler, from identical arrivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope
from readahead.sim.experiments.ranking_cells import LOADS, PROFILE, cells, run_cell
from readahead.sim.experiments.ranking_pages import claims, figure, ranked, searched, tables


@dataclass(frozen=True, slots=True)
class Ranking:
    """Papers' A8: the same framework ranks six schedulers and more."""

    name: str = "ranking"
    title: str = "Nine policies by one ruler"
    asked: str = (
        "Which policy serves readers best, each rival at its own best knob, from the very same "
        "arrivals: calm, near capacity and in overload?"
    )
    set_up: Sequence[str] = (
        "Four A100-80G with Llama-3.1-8B behind the router's own core. `distserve` is `vllm` in "
        "static pools; `llumnix` is `vllm-chunked` with migration by load; all others are "
        "colocated and migrate nobody. Nobody is rejected.",
        *(
            f"{load.words}: "
            + ", ".join(f"{rate:g}" for rate in load.rates_req_s)
            + f" requests/s, scored from {load.window.start_s:g} to {load.window.end_s:g} s."
            for load in LOADS.values()
        ),
        "Each rival's knobs, anew for each workload, are the best of those searched near capacity "
        "on a seed that is not reported, by smooth goodput (F1, literal); the last table says "
        "which. Slices of the trace have those of chat.",
        "Scored is who came in that time, whatever he got and whenever; `F1 in the window` and the "
        "throughput count what that time itself gained: there, a policy that makes a rich reader's "
        "tokens later has fewer, and one that lets work slide past the end does not hide it.",
        "F1 = v·l, F2 = l seconds, alpha 2.5, D0 = 0; each reader has his own pace. SLO attained: "
        "the scenario's promises; slices of a trace have none, and are held to the reading curve.",
    )
    profiles: Sequence[str] = (PROFILE,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """The search, then the ranking."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run in one row."""
        return [run_cell(cell)]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """The order under each load."""
        found = ranked(rows)
        search = searched(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found, search),
            figures=(
                Figure(
                    file="ranking.png",
                    caption="Smooth goodput (F1, literal) as a share of the best policy's, from "
                    "the same arrivals; bars are 95 % intervals, points below 0.5 are drawn at "
                    "its left edge. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                "SLOs-Serve comes with the planner and is not among them. Nothing speculates, "
                "parks KV on the host, or shares prefixes.",
                "Windows are short: slack that is borrowed within them is paid back after them, "
                "and a policy that sacrifices long prompts in overload gains by that. p99 idle "
                "and attainment stand beside smooth goodput for that reason.",
            ),
        )


EXPERIMENT = Ranking()
