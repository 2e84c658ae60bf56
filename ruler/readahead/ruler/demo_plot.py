"""The picture of the two tricks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.ruler.demo import DELAY_SLO, DROP_RATE_REQ_S, DROP_SEEDS, Demonstration, Load, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HONEST, TRICK, READER, INK = "#1f6f8b", "#d1495b", "#9a9a9a", "#333333"
SHOWN_S = 9.0
"""Of one answer: enough for a stall and for what the hoard makes of it."""
SHOWN_TOKENS_MIN = 100
ROOM_FOR_NOTE = 1.28
"""Height of the axes over that of the lines."""

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "readahead",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": "#bbbbbb",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "xtick.color": "#666666",
    "ytick.color": "#666666",
    "lines.linewidth": 1.8,
    "figure.dpi": 110,
}


def write_plot(demonstration: Demonstration, path: Path) -> None:
    """Writes the picture as the file's suffix says; an SVG is the same each time, byte for byte."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context():
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(10.4, 4.3), layout=ConstrainedLayoutEngine(w_pad=0.18, h_pad=0.1))
        delay, abandonment = figure.subplots(1, 2)
        _draw_delay(delay, demonstration.delay)
        _draw_abandonment(abandonment, demonstration.loads, demonstration.abandonment)
        figure.supxlabel(
            f"Simulated toy server, seed {demonstration.seed}; right: mean of {DROP_SEEDS} seeds."
            " Smooth: smooth goodput under F2, censored. Made by readahead tricks --svg.",
            fontsize=8,
            color="#888888",
        )
        is_svg = path.suffix == ".svg"
        figure.savefig(path, metadata={"Date": None} if is_svg else None)


def _draw_delay(axes: Axes, pair: Pair) -> None:
    """One answer as it was delivered, and as it was read."""
    index = _most_stalled(pair)
    honest, delayed = pair.honest.timelines[index], pair.trick.timelines[index]
    start_s = honest.token_times_s[0]
    for timeline, colour, name in (
        (honest, HONEST, "delivered as made"),
        (delayed, TRICK, "output delayed"),
    ):
        times_s = [at - start_s for at in timeline.token_times_s if at - start_s <= SHOWN_S]
        counts = [float(n) for n in range(1, len(times_s) + 1)]
        axes.step(times_s, counts, where="post", color=colour)
        _name(axes, (times_s[-1], counts[-1]), name, colour)
    read = SHOWN_S * DEFAULT_PACE_TOK_S
    axes.plot([0, SHOWN_S], [1, read], color=READER, linestyle="--", linewidth=1.4)
    _name(axes, (SHOWN_S, read), "read, at 5 tokens/s", READER)
    gaps = [s.by_f1.tbt_s.p99 * 1000 for s in (pair.honest, pair.trick) if s.by_f1.tbt_s]
    attained = [100 * (s.by_f1.slo_attainment or 0) for s in (pair.honest, pair.trick)]
    axes.set_title("Output delay: nobody reads sooner, TBT looks better")
    _note(
        axes,
        f"TBT p99  {gaps[0]:.0f} → {gaps[1]:.0f} ms",
        f"attainment of {DELAY_SLO.tbt_s * 1000:.0f} ms  {attained[0]:.0f} → {attained[1]:.0f} %",
        "idle  no user waits less",
    )
    axes.set(xlabel="seconds since the first token", ylabel="tokens", xlim=(0, SHOWN_S * 1.32))
    axes.set_ylim(0, ROOM_FOR_NOTE * axes.get_ylim()[1])
    axes.set_xticks(range(0, int(SHOWN_S) + 1, 3))


def _draw_abandonment(axes: Axes, loads: Sequence[Load], pair: Pair) -> None:
    """Classical goodput and smooth goodput over load, with and without the trick."""
    rates = [load.rate_req_s for load in loads]
    lines = (
        ([load.honest_goodput for load in loads], HONEST, "-", "goodput"),
        ([load.trick_goodput for load in loads], TRICK, "-", "goodput, abandoning"),
        ([load.honest_smooth for load in loads], HONEST, ":", "smooth"),
        ([load.trick_smooth for load in loads], TRICK, ":", "smooth, abandoning"),
    )
    for values, colour, style, _ in lines:
        axes.plot(rates, values, color=colour, linestyle=style)
    ends = _apart([values[-1] for values, *_ in lines], least=0.055 * axes.get_ylim()[1])
    for (_, colour, _, name), height in zip(lines, ends, strict=True):
        _name(axes, (rates[-1], height), name, colour)
    goodput = [seen.by_f1.goodput_tok_s or 0.0 for seen in (pair.honest, pair.trick)]
    report = pair.trick.report
    _note(
        axes,
        f"at {DROP_RATE_REQ_S:g} requests/s, one run: "
        f"goodput  {goodput[0]:.0f} → {goodput[1]:.0f} tokens/s",
        f"of {report.requests} users  {report.cut_off_requests} cut off,"
        f" {report.dropped_requests} dropped",
    )
    axes.set_title("Abandonment: goodput leaps, users are cut off")
    axes.set(xlabel="offered load, requests/s", ylabel="tokens/s", xlim=(0, rates[-1] * 1.42))
    axes.set_ylim(0, ROOM_FOR_NOTE * axes.get_ylim()[1])
    axes.set_xticks(range(0, int(rates[-1]) + 1, 2))


def _note(axes: Axes, *lines: str) -> None:
    axes.text(
        0.03, 0.98, "\n".join(lines), transform=axes.transAxes, va="top", linespacing=1.6, color=INK
    )


def _name(axes: Axes, at: tuple[float, float], name: str, colour: str) -> None:
    axes.annotate(name, at, xytext=(6, 0), textcoords="offset points", color=colour, va="center")


def _apart(heights: Sequence[float], *, least: float) -> list[float]:
    """The same heights in the same order, moved up where labels would lie on one another."""
    placed = list(heights)
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    for lower, upper in pairwise(order):
        placed[upper] = max(placed[upper], placed[lower] + least)
    return placed


def _most_stalled(pair: Pair) -> int:
    """The answer with the longest stall that a hoard hides, early enough to be seen."""

    def hidden_s(index: int) -> float:
        times_s = pair.honest.timelines[index].token_times_s
        if len(times_s) < SHOWN_TOKENS_MIN:
            return 0.0
        shown = [at for at in times_s if 1.5 <= at - times_s[0] <= 0.4 * SHOWN_S]
        return max((later - before for before, later in pairwise(shown)), default=0.0)

    return max(range(len(pair.honest.timelines)), key=hidden_s)
