"""What the disaggregation experiment concludes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.disaggregation_cells import LINKED, SHAPES, TUNING_SEEDS, USES
from readahead.sim.experiments.experiment import Claim, Row, Table, Verdict
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import (
    Mean,
    distinct,
    mean,
    number,
    numbers,
    paired,
    where,
)

COLUMNS = {
    "f1_literal": "F1, tok/s",
    "f2_literal": "F2, tok/s",
    "f1_window": "F1 in the window",
    "attained_slo": "SLO attained",
    "attained_reading": "reading attained",
    "ttft_p99_s": "p99 TTFT, s",
    "tbt_p99_s": "p99 TBT, s",
    "idle_p99_s": "p99 idle, s",
    "preemptions": "preemptions",
}
SPLIT = [name for name, shape in SHAPES.items() if shape.is_split]
TOGETHER = [name for name, shape in SHAPES.items() if not shape.is_split]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One machine, use and load."""

    machine: str
    use: str
    level: str
    rows: Sequence[Row]
    split: str
    """The best ratio."""
    together: str
    """The best colocated policy."""

    @property
    def words(self) -> str:
        """In words."""
        return f"{self.machine}, {USES[self.use].words}, {self.level}"

    def mean(self, shape: str, name: str) -> Mean:
        """A number of a shape."""
        return mean(numbers(where(self.rows, shape=shape), name))

    @property
    def preempts(self) -> bool:
        """Whether either shape preempted anything."""
        shapes = (self.split, self.together)
        return any(self.mean(shape, "preemptions").value > 0 for shape in shapes)

    def more(self, name: str) -> Mean:
        """Split - together, seed by seed."""
        return paired(
            where(self.rows, shape=self.together),
            where(self.rows, shape=self.split),
            lambda row: number(row, name),
        )


def compared(rows: Sequence[Row]) -> list[Compared]:
    """All of them, in the order of the rows."""
    found = []
    for machine in distinct(rows, "machine"):
        for use in distinct(rows, "use"):
            for level in distinct(rows, "level"):
                every = where(rows, machine=machine, use=use, level=level)
                if every:
                    found.append(_compared(every))
    return found


def _compared(every: Sequence[Row]) -> Compared:
    tuning = [row for row in every if row["seed"] in TUNING_SEEDS]

    def best(shapes: Sequence[str]) -> str:
        return max(
            shapes, key=lambda name: mean(numbers(where(tuning, shape=name), "f1_literal")).value
        )

    first = every[0]
    return Compared(
        machine=str(first["machine"]),
        use=str(first["use"]),
        level=str(first["level"]),
        rows=[row for row in every if row["seed"] not in TUNING_SEEDS],
        split=best(SPLIT),
        together=best(TOGETHER),
    )


def claims(found: Sequence[Compared]) -> list[Claim]:
    """All of them."""
    return [
        _counted(
            found,
            finding="Delivery is steadier: p99 TBT is lower than colocated",
            paper="delivery steadier [P]",
            name="tbt_p99_s",
            holds=lambda less: less.high < 0,
            digits="{:+.3f} ± {:.3f} s",
        ),
        _counted(
            [one for one in found if one.preempts],
            finding="Decode instances preempt less",
            paper="preempt less [P]",
            name="preemptions",
            holds=lambda less: less.value < 0,
            digits="{:+.0f} ± {:.0f}",
            why="of the cells in which anything was preempted at all",
        ),
        _counted(
            found,
            finding="It pays: smooth goodput (F1) is higher than colocated",
            paper="guidance, no number [P]",
            name="f1_literal",
            holds=lambda less: less.low > 0,
            digits="{:+.0f} ± {:.0f} tok/s",
        ),
        _counted(
            found,
            finding="It pays in promises kept: SLO attainment is higher than colocated",
            paper="-",
            name="attained_slo",
            holds=lambda less: less.low > 0,
            digits="{:+.3f} ± {:.3f}",
        ),
    ]


def _counted(
    found: Sequence[Compared],
    *,
    finding: str,
    paper: str,
    name: str,
    holds: Callable[[Mean], bool],
    digits: str,
    why: str = "",
) -> Claim:
    differences = [(one, one.more(name)) for one in found]
    met = [one for one, less in differences if holds(less)]
    shown = "; ".join(
        f"{one.words} ({one.split}) {digits.format(less.value, less.half)}"
        for one, less in differences
    )
    verdict = Verdict.PARTLY if met else Verdict.NOT
    if len(met) == len(found):
        verdict = Verdict.REPRODUCED
    return Claim(
        finding=finding,
        paper=paper,
        ours=f"in {len(met)} of {len(found)} cells. {shown}",
        verdict=verdict if found else Verdict.NOT_RUN,
        why=why,
    )


def tables(found: Sequence[Compared]) -> list[Table]:
    """The chosen shapes side by side, then all of them."""
    chosen, every = [], []
    for one in found:
        for shape in (*SHAPES, *LINKED):
            if not where(one.rows, shape=shape):
                continue
            cells = (shape, *(one.mean(shape, name).text() for name in COLUMNS))
            if shape in (one.together, one.split):
                chosen.append((one.words, *cells))
            every.append((one.words, *cells))
    columns = ("cell", "shape", *COLUMNS.values())
    return [
        Table(title="The best of each", columns=columns, rows=chosen),
        Table(
            title="All shapes and links",
            columns=columns,
            rows=every,
            note="NVLink where no link is named; infiniband is one network card a node, 7.8 GB/s "
            "on A100; ethernet 2.3 GB/s.",
        ),
    ]


def figure(found: Sequence[Compared]) -> bytes:
    """What splitting changes, in percent of colocated."""
    shown = [one for one in found if one.level == "near"]
    panels = {"f1_literal": "F1 against colocated, %", "tbt_p99_s": "p99 TBT against it, %"}
    with canvas(height=1.5 + 0.34 * len(shown), columns=2) as drawn:
        for ax, (name, label) in zip(drawn.axes, panels.items(), strict=True):
            for place, one in enumerate(shown):
                base = abs(one.mean(one.together, name).value) or 1.0
                more, number_ = one.more(name), list(USES).index(one.use)
                ax.errorbar(
                    100 * more.value / base,
                    -place,
                    xerr=100 * more.half / base,
                    color=COLOURS[number_],
                    fmt=MARKERS[number_],
                )
            ax.axvline(0.0, color="#24292f", linewidth=0.8)
            ax.set_xlabel(label)
            ax.set_yticks([-place for place in range(len(shown))], [])
        names = [f"{one.machine}, {USES[one.use].words} ({one.split})" for one in shown]
        drawn.axes[0].set_yticks([-place for place in range(len(shown))], names)
        return drawn.png()
