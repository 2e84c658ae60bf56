"""The plots of a score, as SVG for a page: its colours of text and grid are the page's."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from readahead.ruler.columns import idle_at_pace_s
from readahead.ruler.run import Floats, Integers
from readahead.ruler.scoring import RunScore, smooth_goodput_at

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = Path(__file__).with_name("readahead.mplstyle")

INK, GRID, WAIT = "#010203", "#010204", "#c94f4f"
"""The first two are replaced by the page's own."""

ALPHAS = np.linspace(0.0, 10.0, 41)
PACES_TOK_S = np.geomspace(1.0, 20.0, 14)
POINTS_MAX = 2000
"""Of a line: more cannot be seen."""

STALL_S_MIN, STALLS_MAX = 1e-3, 500
"""Shorter stalls, and more of them, cannot be seen either."""


def reading_plot(found: RunScore, name: str) -> str:
    """What three users got and read: the one who idled least, the median one, and the most."""
    chosen = _chosen(found)
    with canvas(width=9.6, height=2.9, columns=max(1, len(chosen))) as (figure, axes):
        for one, (title, index) in zip(axes, chosen, strict=False):
            _draw_reader(one, found, index, title)
        axes[0].set_ylabel("tokens")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        return to_svg(figure, f"reading {name}")


def idle_plot(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    """The share of users who idled longer than each time."""
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        for found, name in zip(runs, names, strict=True):
            ordered = np.sort(found.each.idle_censored_s[found.each.has_reader])
            share = 1 - np.arange(1, len(ordered) + 1) / len(ordered)
            x, y = np.concatenate([[0.0], ordered]), np.concatenate([[1.0], share])
            kept = thinned(len(x))
            ax.step(x[kept], 100 * y[kept], where="post", label=name)
        ax.set_xscale("symlog", linthresh=1.0)
        ax.set_xlim(left=0)
        longest_s = max(
            float(found.each.idle_censored_s.max(where=found.each.has_reader, initial=0.0))
            for found in runs
        )
        ticks = [tick for tick in (0, 1, 10, 100, 1000) if tick <= max(1.0, longest_s)]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
        ax.minorticks_off()
        ax.set_ylim(0, 101)
        ax.set_xlabel("idle time, s (censored)")
        ax.set_ylabel("users, %")
        ax.set_title("Users who idled longer")
        return to_svg(figure, "idle")


def alpha_plot(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    """Smooth goodput against the weight of idle time."""
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        for number, (found, name) in enumerate(zip(runs, names, strict=True)):
            for is_censored, line in ((False, "-"), (True, (0, (2, 2)))):
                values = _against_alpha(found, is_censored=is_censored)
                ax.plot(
                    ALPHAS, values, color=f"C{number}", linestyle=line,
                    label="" if is_censored else name,
                )  # fmt: skip
        ax.axvline(runs[0].ruler.alpha, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set_xlabel("weight of idle time, alpha")
        ax.set_ylabel("tok/s")
        bound_below(ax)
        ax.set_title("Smooth goodput against alpha")
        return to_svg(figure, "alpha")


def pace_plot(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    """Smooth goodput if everybody read at one pace, against that pace."""
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        for found, name in zip(runs, names, strict=True):
            values = [_at_pace(found, float(pace)) for pace in PACES_TOK_S]
            ax.plot(PACES_TOK_S, values, label=name)
        ax.axvline(runs[0].ruler.pace_tok_s, color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
        ax.set_xscale("log")
        ax.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
        ax.minorticks_off()
        ax.set_xlabel("pace of all users, tok/s")
        ax.set_ylabel("tok/s")
        bound_below(ax)
        ax.set_title("Smooth goodput against pace")
        return to_svg(figure, "pace")


def sweep_plot(groups: dict[str, list[RunScore]]) -> str:
    """Smooth goodput, goodput and attainment against the offered rate."""
    panels = (
        ("smooth_goodput_tok_s", "smooth goodput, tok/s", 1.0),
        ("goodput_tok_s", "goodput, tok/s", 1.0),
        ("slo_attainment", "SLO attainment, %", 100.0),
    )
    with canvas(width=9.6, height=3.2, columns=len(panels)) as (figure, axes):
        for ax, (name, label, scale) in zip(axes, panels, strict=True):
            for group, found in groups.items():
                rates = [one.run.offered_req_s() or np.nan for one in found]
                values = [_or_nan(getattr(one.score, name)) * scale for one in found]
                ax.plot(rates, values, marker="o", label=group)
            ax.set_xlabel("offered, req/s")
            ax.set_title(label)
            ax.set_xlim(left=0)
            bound_below(ax)
        axes[2].set_ylim(0, 103)
        if len(groups) > 1:
            handles, labels = axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=3)
        return to_svg(figure, "sweep")


def _chosen(found: RunScore) -> list[tuple[str, int]]:
    """Users with text, by their idle time."""
    answered = np.flatnonzero(found.each.read_tokens > 0)
    order = answered[np.argsort(found.each.idle_censored_s[answered], kind="stable")]
    if not len(order):
        return []
    places = {"least idle": order[0], "median": order[len(order) // 2], "most idle": order[-1]}
    return [(title, int(place)) for title, place in places.items()][: len(order)]


def _draw_reader(ax: Axes, found: RunScore, index: int, title: str) -> None:
    run = found.run
    timeline = run.timeline(index)
    curve = found.ruler.curve(timeline)
    start_s = curve.start_s(timeline) - timeline.arrival_s
    times_s = np.array(timeline.read_times_s) - timeline.arrival_s
    count = np.arange(1, len(times_s) + 1)
    # When each token has been read: due, plus all that the reader has waited so far.
    due_s = start_s + count / curve.pace_tok_s
    waited_s = np.maximum.accumulate(np.maximum(0.0, times_s - due_s))
    read_s = due_s + waited_s
    kept = thinned(len(times_s))
    ax.step(times_s[kept], count[kept], where="post", color="C0", label="delivered")
    # During a stall the reader stands still: a point of the token before, at its end.
    late = np.flatnonzero(np.diff(waited_s) > STALL_S_MIN) + 1
    steps_s, steps = np.insert(read_s, late, read_s[late]), np.insert(count, late, count[late - 1])
    shown = thinned(len(steps))
    ax.plot(steps_s[shown], steps[shown], color="C2", label="read")
    ax.plot(due_s[kept], count[kept], color=INK, alpha=0.5, linewidth=1.0, linestyle=(0, (4, 3)),
            label="read without a wait")  # fmt: skip
    idle_s = float(found.each.idle_censored_s[index])
    told_s = float(waited_s[-1])
    # The wait for a token that never came begins when the last one is read.
    hung = [(read_s[-1], read_s[-1] + idle_s - told_s)] if idle_s > told_s + STALL_S_MIN else []
    for begin_s, end_s in [*_stalls_s(due_s, waited_s), *hung]:
        ax.axvspan(begin_s, end_s, color=WAIT, alpha=0.16, linewidth=0)
    ax.axvspan(np.nan, np.nan, color=WAIT, alpha=0.3, linewidth=0, label="idle")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    ax.set_xlabel("seconds since arrival")
    ax.set_title(f"{title}: {idle_s:.2f} s idle")


def _stalls_s(due_s: Floats, waited_s: Floats) -> Iterator[tuple[float, float]]:
    """When the reader had nothing to read: from the end of what he had to the late token."""
    steps_s = np.diff(waited_s, prepend=0.0)
    for place in np.flatnonzero(steps_s > STALL_S_MIN)[:STALLS_MAX]:
        end_s = due_s[place] + waited_s[place]
        yield max(0.0, end_s - steps_s[place]), end_s


def bound_below(ax: Axes) -> None:
    """Shows zero, and of what is deep below it no more than of what is above."""
    low, high = ax.get_ylim()
    if high > 0:
        ax.set_ylim(bottom=max(min(low, 0.0), -high))
    if high > 0 > low:
        ax.axhline(0.0, color=INK, linewidth=0.8, alpha=0.6)


def _against_alpha(found: RunScore, *, is_censored: bool) -> Floats:
    both = [smooth_goodput_at(found, alpha=alpha, is_censored=is_censored) for alpha in (0.0, 1.0)]
    none, one = (_or_nan(value) for value in both)
    return none + (one - none) * ALPHAS


def _at_pace(found: RunScore, pace_tok_s: float) -> float:
    idle_s = idle_at_pace_s(found.run, found.ruler, pace_tok_s=pace_tok_s)
    return _or_nan(
        smooth_goodput_at(
            found,
            alpha=found.ruler.alpha,
            idle_s=idle_s,
            paces_tok_s=np.full(found.run.requests, pace_tok_s),
        )
    )


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


def thinned(points: int) -> Integers:
    """Places of as many of these points as can be seen."""
    return np.unique(np.linspace(0, points - 1, min(points, POINTS_MAX)).astype(int))


@contextmanager
def canvas(
    *, width: float, height: float, columns: int = 1
) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure of some panels side by side, inches, in the style of the ruler."""
    colours: dict[Any, Any] = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
    )
    with mpl.rc_context(fname=STYLE):
        mpl.rcParams.update({**colours, "grid.color": GRID})
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
        yield figure, list(axes)


def to_svg(figure: Figure, salt: str) -> str:
    """The figure as an element of a page. The salt keeps ids of several figures apart."""
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    text = written.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    prefix = re.sub(r"\W+", "-", salt)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\1{prefix}-", text)
    return text.replace(INK, "currentColor").replace(GRID, "var(--grid)")
