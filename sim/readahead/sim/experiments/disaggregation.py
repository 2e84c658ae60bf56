"""Prompts and decodes on one GPU, or apart?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.disaggregation_cells import MACHINES, cells, fleet
from readahead.sim.experiments.disaggregation_pages import claims, compared, figure, tables
from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope


@dataclass(frozen=True, slots=True)
class Disaggregation:
    """[SmoothGoodput] on prefill and decode instances, [DistServe] static pools."""

    name: str = "disaggregation"
    title: str = "Disaggregated against colocated, on four GPUs"
    asked: str = (
        "Where prompts are computed apart, decode instances preempt less and deliver more "
        "steadily, the paper says. Does it pay: do readers on four GPUs get more out of static "
        "pools, at the best ratio, than out of four workers that do both?"
    )
    set_up: Sequence[str] = (
        "Four A100-80G or four H100, Llama-3.1-8B or Qwen2.5-14B, a GPU a worker. Colocated: "
        "vLLM's chunked prefill (2,048 tokens an iteration) or Sarathi with 512. Static pools as "
        "in DistServe: 1P3D, 2P2D, 3P1D, whole prompts in order of arrival, KV pulled over the "
        "link.",
        "The colocated policy and the ratio of the pools are chosen by smooth goodput (F1) on a "
        "seed that is not reported, anew for each cell.",
        "Chat and code have the lengths of Azure's traces; long prompts are an assumption "
        "(lognormal, median 8,000 tokens, at most 24,000; answers of 200). Code comes in batches "
        "of five on average. Loads: 8B on A100 as in the tables; H100 and 14B scaled by what they "
        "can do (8B H100 2.2 times, 14B A100 half, 14B H100 1.1 times).",
        "Where KV memory is cut to a third: reasoning with the lengths of DeepSeek-R1 in "
        "ServeGen's traces, all of it read, gamma arrivals of CV 2. Preemptions are those of all "
        "four.",
        "Scored is who came in a window after the start, whatever he got and whenever (F1 = v·l, "
        "F2 = l seconds, alpha 2.5); `F1 in the window` counts what that time itself gained.",
        "SLO attained: first token within 5 times (long prompts 3) what it takes on the idle "
        "cluster of that shape, then 100 ms a token (code 50 ms).",
    )
    profiles: Sequence[str] = tuple(dict.fromkeys(m.profile for m in MACHINES.values()))

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All shapes."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run in one row."""
        return [cell.row(**fleet(cell).numbers())]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Shape against shape."""
        found = compared(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="disaggregation.png",
                    caption="Static pools at their best ratio against colocated workers at their "
                    "best policy, from the same arrivals, near capacity; bars are 95 % intervals. "
                    "Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                "The pools are static: a ratio that is right on average is wrong within a burst.",
                "Mixed iterations are 1.7 times dearer in their reads of KV, from one measured "
                "profile of another GPU; less would favour colocated workers.",
                "KV is pulled after the whole prompt, not layer by layer.",
            ),
        )


EXPERIMENT = Disaggregation()
