"""Readers who give up KV memory while they read: when does that help, and when does it harm?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope
from readahead.sim.experiments.parking_cells import PROFILE, cells, numbers
from readahead.sim.experiments.parking_pages import claims, compared, figure, tables


@dataclass(frozen=True, slots=True)
class Parking:
    """Solvent parking with a host memory tier. What was measured on a small model stands in
    experiments/parking."""

    name: str = "parking-simulated"
    title: str = "Parking on host memory, simulated: with the solvency test and without"
    asked: str = (
        "A reader with much left to read needs no KV on the device until that is nearly gone. "
        "Parked in host memory he makes room for a prompt. Does that help where KV memory is "
        "short, does it harm where computing is the limit, and does the solvency test (nobody is "
        "parked for others while all who read need more than 0.9 of the engine's time) tell the "
        "two apart?"
    )
    set_up: Sequence[str] = (
        "One A100-80G with Llama-3.1-8B and a half or a third of its KV memory (467 thousand "
        "tokens); copies go over PCIe at 25 GB/s in each direction, beside computing, and are made "
        "by the very planner and Batch that engines have.",
        "Reasoning: lengths of DeepSeek-R1 in ServeGen's traces, all of it read, gamma arrivals of "
        "CV 2. Chat: lengths of Azure's conversations of 2023, Poisson arrivals, more than the GPU "
        "can compute. Readers go 5 tokens/s in the median, or 20 where a row says so, spread over "
        "people; nobody is rejected.",
        "All arms but the first are `readahead` with its defaults; `solvent parking` has `park = "
        "on`, `unguarded parking` also `park_load = 1000`, which switches the test off. Copies, "
        "dwell time and the limit of parked memory (`park_share` 2) are the same.",
        "Scored is who came in a window after the start, whatever he got and whenever: tokens less "
        "penalties, F1 = v·l and F2 = l seconds, alpha 2.5, D0 = 0, per second of the window. "
        "Arrivals go on beyond the window, and the run to its very end.",
    )
    profiles: Sequence[str] = (PROFILE,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All cases and arms."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run in one row."""
        return [cell.row(**numbers(cell))]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """What parking brought, and cost."""
        found = compared(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="parking.png",
                    caption="Reading promises kept, and the p99 reader's wait, from the same "
                    "arrivals; bars are 95 % intervals. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                "The prototype's figures are of 4 GPUs with an iteration-time model of its own; "
                "they are a lead, not a paper's finding.",
                "The scheduler believes iteration times that are true here, and knows each "
                "reader's pace.",
                "Who is parked gets no tokens for seconds: a promise of 100 ms a token is broken "
                "by that, whatever there is to read.",
                "Without the solvency test there still is slack beyond the copies, a dwell time, "
                "a limit of what is parked, and a return before the text ends: readers of 5 "
                "tokens/s need no more, those of 20 do.",
                "Slack can be borrowed: a window says what holds for its length. Parked memory "
                "that grows until the window's end is a debt.",
                "What an engine measures on a small model: [parking](../parking/README.md).",
            ),
        )


EXPERIMENT = Parking()
