"""How configurations rank, and how far each request is off, drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from predict import Lived

mpl.use("Agg")
import matplotlib.pyplot as plt

TIE = 0.02
"""Configurations whose real medians are closer than this have no order to be said."""


def ranks(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Configurations of each workload by median TTFT, as they ran and as simulated."""
    model = [row for row in rows if row["against"] == "model"]
    workloads = {str(row["workload"]).partition("@")[0] for row in model}
    for workload in sorted(workloads):
        every = [row for row in model if str(row["workload"]).partition("@")[0] == workload]
        mine = list({row["configuration"].partition("@")[0]: row for row in every[::-1]}.values())
        if len(mine) > 1:
            fields = ("ttft_s_real", "ttft_s_simulated")
            real, said = (", ".join(_order(mine, field)) for field in fields)
            yield f"{workload}: real {real} ms; simulated {said} ms: {_verdict(mine)}"


def _order(rows: Sequence[Mapping[str, Any]], field: str) -> Iterator[str]:
    for row in sorted(rows, key=itemgetter(field)):
        yield f"{row['configuration']} {row[field] * 1e3:.1f}"


def _verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Looks at each pair, as long as the real ones are apart by more than TIE."""
    pairs = [
        (row, other)
        for row in rows
        for other in rows
        if other["ttft_s_real"] > row["ttft_s_real"] * (1 + TIE)
    ]
    right = sum(row["ttft_s_simulated"] < other["ttft_s_simulated"] for row, other in pairs)
    ties = len(rows) * (len(rows) - 1) // 2 - len(pairs)
    return f"{right} of {len(pairs)} pairs in order, {ties} within {TIE:.0%} in the real runs"


def draw(points: Sequence[tuple[str, Lived, Lived]], path: Path) -> None:
    """Each request's TTFT and TPOT, real across and simulated up."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2))
    for ax, field in zip(axes, ("ttft_s", "tpot_s"), strict=True):
        ends: list[float] = []
        for name in dict.fromkeys(name for name, _, _ in points):
            pairs = [
                (getattr(was, field) * 1e3, getattr(said, field) * 1e3)
                for one, was, said in points
                if one == name and getattr(was, field) > 0 and 0 < getattr(said, field) < math.inf
            ]
            ax.loglog(*zip(*pairs, strict=True), "o", ms=3, alpha=0.6, label=name)
            ends += [value for pair in pairs for value in pair]
        line = [min(ends), max(ends)]
        ax.loglog(line, line, "k-", lw=0.8)
        ax.set(xlabel=f"real {field[:4].upper()}, ms", ylabel="simulated, ms")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
