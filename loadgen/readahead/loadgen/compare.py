"""Several endpoints under the same workload: in which order, and how they differ."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from readahead.loadgen.compare_intervals import MEASURES, Interval, Measure, ratio_interval
from readahead.loadgen.report_runs import LoadRun
from readahead.ruler.table import number_text


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMeasure:
    """One number of one endpoint, against that of the first."""

    label: str
    measure: Measure
    values: tuple[float, ...]
    """Of each block; nan: undefined."""
    ratio: Interval | None
    """To the first endpoint; None: undefined."""

    @property
    def mean(self) -> float:
        """Over the blocks in which it is defined; nan if there are none."""
        defined = [value for value in self.values if value == value]
        return sum(defined) / len(defined) if defined else float("nan")

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 1, no difference."""
        return self.ratio is not None and (self.ratio.low > 1 or self.ratio.high < 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Endpoints over alternating blocks."""

    labels: tuple[str, ...]
    """The first is the one that the others are compared to."""
    blocks: int
    """Of each endpoint."""
    order: tuple[str, ...]
    """Labels, in the order in which the blocks ran."""
    measures: tuple[ComparedMeasure, ...]

    def of(self, label: str) -> list[ComparedMeasure]:
        """The numbers of one endpoint."""
        return [one for one in self.measures if one.label == label]


def block_order(labels: Sequence[str], *, blocks: int, seed: int) -> list[str]:
    """Alternating blocks, ABAB: what drifts on the machine meets all alike. The seed draws who
    begins."""
    if blocks < 1:
        raise ValueError(f"a comparison needs at least one block, got {blocks}")
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"a comparison needs two different endpoints or more, got {list(labels)}")
    drawn = list(labels)
    random.Random(f"{seed}/blocks").shuffle(drawn)
    return drawn * blocks


def compare(
    runs: Mapping[str, Sequence[LoadRun]], *, order: Sequence[str], seed: int
) -> Comparison:
    """Compares blocks; block i of each endpoint had the same workload."""
    labels = tuple(runs)
    base = labels[0]
    values = {
        (label, measure.name): tuple(
            measure.of(run.score, np.arange(run.score.run.requests)) for run in runs[label]
        )
        for label in labels
        for measure in MEASURES
    }
    return Comparison(
        labels=labels,
        blocks=len(runs[base]),
        order=tuple(order),
        measures=tuple(
            ComparedMeasure(
                label=label,
                measure=measure,
                values=values[label, measure.name],
                ratio=ratio_interval(
                    values[label, measure.name], values[base, measure.name], seed=seed
                ),
            )
            for label in labels
            for measure in MEASURES
        ),
    )


def interval_text(found: Interval | None) -> str:
    """A ratio and its interval."""
    if found is None:
        return "-"
    if found.low != found.low:
        return f"{found.value:.3f} (one block: no interval)"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def comparison_report(found: Comparison) -> RenderableType:
    """The comparison as a table for a terminal."""
    base, *others = found.labels
    table = Table(title=f"{found.blocks} blocks of each, ratios to {base}", title_justify="left")
    table.add_column("")
    table.add_column(base, justify="right")
    for label in others:
        table.add_column(label, justify="right")
        table.add_column("ratio [95 %]", justify="right")
    for number, measure in enumerate(MEASURES):
        cells = [number_text(_defined(found.of(base)[number].mean))]
        for label in others:
            one = found.of(label)[number]
            style = "bold" if one.is_clear else "dim"
            cells += [
                number_text(_defined(one.mean)),
                f"[{style}]{interval_text(one.ratio).replace('[', '(').replace(']', ')')}[/]",
            ]
        table.add_row(measure.label, *cells)
    note = Text(f"order of the blocks: {' '.join(found.order)}", style="dim")
    return Group(table, note)


def _defined(value: float) -> float | None:
    return value if value == value else None
