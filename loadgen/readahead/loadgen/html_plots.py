"""The plots of a load report that the ruler's page has not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from readahead.loadgen.compare_intervals import Interval
from readahead.loadgen.html_readers import readers_over_time
from readahead.loadgen.report_runs import LoadRun
from readahead.loadgen.statistics import LATENESS_SHARE_MAX
from readahead.loadgen.sweep import SweepPoint, peak
from readahead.ruler.plots import INK, WAIT, bound_below, canvas, thinned, to_svg

BINS = 40


def over_time_plot(run: LoadRun) -> str:
    """Unread text, and users who wait, over the run."""
    state = readers_over_time(run.score)
    with canvas(width=9.6, height=2.9, columns=2) as (figure, axes):
        left, right = axes
        left.fill_between(state.at_s, state.unread_tokens, color="C0", alpha=0.25, linewidth=0)
        left.plot(state.at_s, state.unread_tokens, color="C0", linewidth=1.4)
        left.set_title("Delivered and not yet read, tokens of all users")
        right.plot(state.at_s, state.open_requests, color="C1", label="requests open")
        right.fill_between(
            state.at_s, state.idle_users, color=WAIT, alpha=0.45, linewidth=0, label="users idle"
        )
        right.set_title("Users who wait with nothing to read")
        right.legend(loc="upper right")
        for ax in axes:
            ax.set_xlabel("seconds into the run")
            ax.set_xlim(0, float(state.at_s[-1]))
            ax.set_ylim(bottom=0)
        return to_svg(figure, f"over time {run.label}")


def ttft_plot(runs: Sequence[LoadRun]) -> str:
    """The share of requests that had their first token within each time."""
    values = [np.sort(run.score.each.ttft_s[~np.isnan(run.score.each.ttft_s)]) for run in runs]
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        for run, ordered in zip(runs, values, strict=True):
            if len(ordered):
                kept = thinned(len(ordered))
                share = np.arange(1, len(ordered) + 1) / len(ordered)
                ax.step(np.maximum(ordered[kept], 1e-4), 100 * share[kept], where="post",
                        label=run.label)  # fmt: skip
        ax.set_xscale("log")
        ax.set_ylim(0, 101)
        ax.set_xlabel("TTFT from intended send, s")
        ax.set_ylabel("requests, %")
        ax.set_title("First token within")
        return to_svg(figure, "ttft")


def idle_histogram(runs: Sequence[LoadRun]) -> str:
    """How many users idled how long, in all."""
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        idle_s = [run.score.each.idle_censored_s[run.score.each.has_reader] for run in runs]
        longest_s = max(float(one.max(initial=0.0)) for one in idle_s)
        edges_s = np.linspace(0.0, max(longest_s, 0.01), BINS + 1)
        for run, one in zip(runs, idle_s, strict=True):
            shares = np.histogram(one, edges_s)[0] / max(1, len(one))
            ax.stairs(100 * shares, edges_s, fill=len(runs) == 1, label=run.label, linewidth=1.5)
        ax.set_xlim(left=0)
        ax.set_xlabel("idle time, s (censored)")
        ax.set_ylabel("users, %")
        ax.set_title("Idle time")
        return to_svg(figure, "idle histogram")


def lateness_plot(runs: Sequence[LoadRun], gap_s: float | None) -> str:
    """How late requests were sent, against what a run may have."""
    with canvas(width=3.7, height=3.3) as (figure, axes):
        ax = axes[0]
        for run in runs:
            ordered = np.sort(run.lateness_s[~np.isnan(run.lateness_s)])
            if len(ordered):
                kept = thinned(len(ordered))
                share = np.arange(1, len(ordered) + 1) / len(ordered)
                ax.step(np.maximum(1e3 * ordered[kept], 1e-3), 100 * share[kept], where="post",
                        label=run.label)  # fmt: skip
        if gap_s is not None:
            ax.axvline(1e3 * gap_s * LATENESS_SHARE_MAX, color=WAIT, linewidth=1.2)
            ax.set_title("Sends: late by (red: the limit)")
        else:
            ax.set_title("Sends: late by")
        ax.set_xscale("log")
        ax.set_ylim(0, 101)
        ax.set_xlabel("milliseconds")
        ax.set_ylabel("sends, %")
        return to_svg(figure, "lateness")


def sweep_plot(points: Sequence[SweepPoint]) -> str:
    """Smooth goodput, throughput and attainment against the rate, with the peak marked."""
    best = peak(points)
    rates = np.array([point.rate_req_s for point in points])
    panels = (
        ("smooth_goodput_censored_tok_s", "smooth goodput (censored), tok/s", 1.0),
        ("throughput_tok_s", "throughput, tok/s", 1.0),
        ("slo_attainment", "SLO attainment, %", 100.0),
    )
    valid = np.array([point.is_valid for point in points])
    with canvas(width=9.6, height=3.2, columns=len(panels)) as (figure, axes):
        for ax, (name, label, scale) in zip(axes, panels, strict=True):
            values = np.array([_or_nan(getattr(p.score.score, name)) * scale for p in points])
            ax.plot(rates, values, marker="o", color="C0")
            ax.plot(rates[~valid], values[~valid], "x", color=WAIT, markersize=9)
            if best is not None:
                ax.axvline(best.rate_req_s, color=INK, linewidth=0.9, linestyle=(0, (1, 3)))
                at = int(np.flatnonzero(rates == best.rate_req_s)[0])
                ax.plot(rates[at], values[at], "o", color="C1", markersize=9)
            ax.margins(y=0.14)  # the marker of the peak is not to be cut
            ax.set_xlim(left=0)
            ax.set_xlabel("offered, req/s")
            ax.set_title(label)
        bound_below(axes[0])
        axes[1].set_ylim(bottom=0)
        axes[2].set_ylim(0, 103)
        return to_svg(figure, "load sweep")


def ratio_plot(rows: Sequence[tuple[str, Interval]], *, salt: str) -> str:
    """Ratios with their intervals, a line each; 1 is no difference."""
    with canvas(width=9.6, height=0.9 + 0.32 * max(1, len(rows))) as (figure, axes):
        ax = axes[0]
        places = np.arange(len(rows))[::-1]
        for place, (_, found) in zip(places, rows, strict=True):
            if np.isfinite(found.low) and np.isfinite(found.high):
                ax.plot([found.low, found.high], [place, place], color="C0", linewidth=3, alpha=0.5)
            ax.plot(found.value, place, "o", color="C0", markersize=6)
        ax.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (1, 3)))
        ax.set_yticks(places, [label for label, _ in rows])
        ax.set_ylim(-0.6, len(rows) - 0.4)
        ax.set_xlabel("ratio")
        return to_svg(figure, f"ratio {salt}")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def mean_gap_s(run: LoadRun) -> float | None:
    """Between the arrivals that were asked for; None for a lone request."""
    rate = run.score.run.offered_req_s()
    return 1 / rate if rate else None
