"""Who should move to another decode worker: whoever needs it, or whoever evens the load?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Cell, Figure, Findings, Row, Scope
from readahead.sim.experiments.migration_cells import PROFILE, cells, fleet
from readahead.sim.experiments.migration_claims import claims
from readahead.sim.experiments.migration_compared import compared
from readahead.sim.experiments.migration_tables import figure, tables
from readahead.sim.experiments.ranking_fleet import FRESH_S


@dataclass(frozen=True, slots=True)
class Migration:
    """[SmoothGoodput] on migration between decode instances; papers' A10."""

    name: str = "migration"
    title: str = "Move whom it helps: migration by need against migration by load"
    asked: str = (
        "A decode worker can be slow, full or about to stop. Is it enough to move a running "
        "request only when its reader has nothing left to read and gains by it (`need`), instead "
        "of whenever loads differ (`load`, as Llumnix does), or whenever loads differ and unread "
        "text hides the move (`cover`)? Criterion: at least 30 % fewer moves, at equal or better "
        "smooth goodput and p99 idle time."
    )
    set_up: Sequence[str] = (
        "Four A100-80G with Llama-3.1-8B, vLLM's chunked prefill, one 7.8 GB/s network card each; "
        "the router's own core decides, looks every 0.25 s, and knows of each worker at least "
        f"every {FRESH_S:g} s. Two prefill and two decode workers where a row says 2P2D.",
        "All rules see the same requests. Readers go 5 tokens/s in the median, or 15 where a row "
        "says so, spread over people; nobody is rejected. Mixed use: 50 % chat, 35 % code, 15 % "
        "reasoning.",
        "Scored is who came in a window after the start, whatever he got and whenever: tokens less "
        "penalties, F1 = v·l and F2 = l seconds, alpha 2.5, D0 = 0, per second of the window. All "
        "rules are asked for the same tokens, so that they differ by what people waited alone. "
        "Arrivals go on beyond the window, and the run to its very end.",
        "A slow worker takes twice the time that the router's model of it says, which the router "
        "can see from its tokens alone. A drained one takes nothing new.",
        "`load` moves from a worker whose requests could each make fewer than so many tokens until "
        "memory is full. That number and the gap are searched, anew for each situation, on two "
        "seeds that are not reported; the number in a rule's name is the first of the two. `cover` "
        "has the middle of them.",
    )
    profiles: Sequence[str] = (PROFILE,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All situations and rules."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run in one row."""
        return [cell.row(**fleet(cell).numbers())]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Moves saved, and what they cost."""
        found = compared(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            figures=(
                Figure(
                    file="migration.png",
                    caption="Moves in a run, and smooth goodput (F1, literal) against no "
                    "migration from the same arrivals; bars are 95 % intervals. Simulated.",
                    png=figure(found),
                ),
            ),
            notes=(
                "The window's length differs between situations, so moves are comparable within a "
                "situation only. They are counted over the whole run.",
                "Placement counts committed tokens and knows nothing of speed. Whoever is moved "
                "off a slow worker makes room for a newcomer, whose prompt is then computed there; "
                "the router goes on counting who has left, which damps that and does not end it.",
                "A transfer takes the link alone here; other traffic between workers is KV of "
                "handovers only.",
            ),
        )


EXPERIMENT = Migration()
