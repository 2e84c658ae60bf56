"""The capacity table: how much each policy carries while nine requests of ten are attained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    SCENARIOS,
    SIZES,
)
from readahead.sim.experiments.capacity_claims import absent, claims
from readahead.sim.experiments.capacity_found import Capacities
from readahead.sim.experiments.capacity_kept import FOLDER
from readahead.sim.experiments.capacity_rivals import (
    rivals,
)
from readahead.sim.experiments.capacity_search import Search
from readahead.sim.experiments.capacity_tables import cost_note, figure, tables
from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope


@dataclass(frozen=True, slots=True)
class Capacity:
    """Papers' B11 and B12: capacities by bisection, baselines at their own best knobs."""

    name: str = "capacity"
    title: str = "How much each policy carries"
    asked: str = (
        "Up to which rate of requests are 90 % (99 %) attained, by which policy, on which GPUs, "
        "for which use, and under whose promise: the reading SLO, or those of SLOs-Serve?"
    )
    set_up: Sequence[str] = (
        "Capacity: the highest rate at which the share is attained and the last answer ends less "
        "than 20 s after the last due time [SLOs-Serve], by bisection over rates "
        f"{SIZES[Scope.FULL].step - 1:.0%} apart; between the last that passes and the next, "
        "straight in the share.",
        "Reading SLO: at 5 tokens/s nobody ever waits longer than 1 s in all, a model's thinking "
        "read with the rest; rounds that a program reads are held to the scenario's SLO. SLOs of "
        "the scenarios: a slow-down to the first token and a time per token of each stage, as "
        "SLOs-Serve checks them. A session is attained if all its requests are.",
        "Steady windows, since slack can be borrowed past the end of a run: "
        + "; ".join(
            f"{one.words} {one.window.start_s:g} s of warm-up, "
            f"{one.window.last_s - one.window.start_s:g} s scored, "
            f"{one.window.end_s - one.window.last_s:g} s of load behind it"
            for one in SCENARIOS.values()
        )
        + ".",
        "Sessions that do not fit the model's context are left out, as in the paper. Lengths: "
        "Azure's conversations and code of 2023, arXiv summarization, DeepSeek-R1 in ServeGen; "
        "tool loops are assumed. Arrivals: Poisson; code and tool calling in bursts of 12 on "
        "average, at four times the rate for a quarter of the time; mixed gamma with a CV of 2. "
        "The same sessions for all policies, and at all rates but for the time between them.",
        "`distserve` is `vllm` in static pools, `llumnix` is `vllm-chunked` with migration by "
        "load; all others are colocated and migrate nobody. Policies that look at due times are "
        "told those of the promise they are judged by. Nobody is rejected.",
        "Each rival's knobs are the ones that get furthest on a seed that is not reported, anew "
        "for each cluster, scenario and promise.",
    )
    profiles: Sequence[str] = tuple(dict.fromkeys(one.profile for one in MACHINES.values()))

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """A cell is a whole search: its seeds begin where the one before ended."""
        size = SIZES[scope]
        return [
            Cell(
                parameters={
                    "machine": machine,
                    "scenario": scenario,
                    "policy": policy,
                    "scope": scope.value,
                },
                seed=0,
            )
            for machine in size.machines
            for scenario in MACHINES[machine].scenarios or size.scenarios
            for policy in rivals(MACHINES[machine])
        ]

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """All points of a search, and what was found. Points that are kept are not run again."""
        scope = Scope(cell.text("scope"))
        search = Search(
            machine=cell.text("machine"),
            scenario=cell.text("scenario"),
            policy=cell.text("policy"),
            scope=scope,
            folder=None if scope is Scope.TINY else FOLDER,
        )
        return search.run()

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Who carries how much, and what of the goals is reached."""
        found = Capacities(rows=rows)
        missing = absent(found)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="capacity.png",
                    caption="Capacity at 90 % attained over that of the best of vLLM, Sarathi and "
                    "DistServe, from the same arrivals; the bars of `readahead` are 95 % "
                    "intervals. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                cost_note(found),
                *([f"Not run here: {'; '.join(missing)}."] if missing else []),
                "Nothing speculates, parks KV on the host, or shares prefixes; roles are static. "
                "The paper's 2.2x is with speculation.",
                "The goals for `mixed` come from a prototype whose mix had reasoning in it: that "
                "mix is `mixed with reasoning`, beside the paper's own.",
                "OPT's context is 2,048 tokens. What does not fit is left out there: 13 % of chat, "
                "39 % of code, 82 % of summarization, 63 % of tool calling, 28 % of reasoning.",
                "Bursts are made, not slices of a trace; like those, they grow sharper as the rate "
                "does.",
            ),
        )


EXPERIMENT = Capacity()
