"""Pictures of an experiment, as PNG on white, to be read at 700 pixels' width."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from readahead.ruler.plots import STYLE
from readahead.sim.experiments.intervals import Mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, GRID = "#24292f", "#d9dee3"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7a7a7a")
"""Okabe and Ito's, which the colour-blind can tell apart."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH_IN, DPI = 7.4, 130


class Canvas:
    """A figure and its panels."""

    def __init__(self, figure: Figure, axes: Sequence[Sequence[Axes]]) -> None:
        self.figure = figure
        self.rows = axes

    @property
    def axes(self) -> list[Axes]:
        """All panels, row by row."""
        return [one for row in self.rows for one in row]

    def png(self) -> bytes:
        """The picture. Same drawing, same bytes on one machine."""
        written = io.BytesIO()
        self.figure.savefig(written, format="png", dpi=DPI, metadata={"Software": None})
        return written.getvalue()

    def legend(self, columns: int, ax: Axes | None = None) -> None:
        """One legend below all panels, of the first or the given one's lines."""
        handles, labels = (ax or self.axes[0]).get_legend_handles_labels()
        self.figure.legend(handles, labels, loc="outside lower center", ncols=columns)


@contextmanager
def canvas(*, height: float, columns: int = 1, rows: int = 1) -> Iterator[Canvas]:
    """Panels in a grid, inches high in all."""
    ink: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context(fname=STYLE):
        mpl.rcParams.update(ink)
        mpl.rcParams.update(
            {
                "figure.facecolor": "white",
                "axes.facecolor": "white",
                "savefig.facecolor": "white",
                "savefig.transparent": False,
                "grid.color": GRID,
                "axes.prop_cycle": cycler("color", COLOURS),
                "lines.linewidth": 1.8,
                "lines.markersize": 4.5,
            }
        )
        figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
        yield Canvas(figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)])


def line(
    ax: Axes, x: Sequence[float], means: Sequence[Mean], *, label: str, number: int, dash: str = "-"
) -> None:
    """A line with the band of its intervals."""
    colour = COLOURS[number % len(COLOURS)]
    ax.plot(
        x,
        [one.value for one in means],
        dash,
        color=colour,
        marker=MARKERS[number % len(MARKERS)],
        label=label,
    )
    ax.fill_between(
        x, [one.low for one in means], [one.high for one in means], color=colour, alpha=0.18, lw=0
    )


def floor_at(ax: Axes, share: float) -> None:
    """Shows zero, the lines' tops, and below zero no more than this share of what is above.

    Bands of few seeds may reach out of the picture.
    """
    low, _ = ax.get_ylim()
    drawn = [value for one in ax.get_lines() for value in np.asarray(one.get_ydata(), dtype=float)]
    high = 1.12 * max((value for value in drawn if np.isfinite(value)), default=0.0)
    if high > 0:
        ax.set_ylim(max(min(low, 0.0), -share * high), high)
    if low < 0 < high:
        ax.axhline(0.0, color=INK, linewidth=0.8, alpha=0.6)
