"""The tables of a load report that the ruler's page has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from readahead.loadgen.compare import Comparison, interval_text
from readahead.loadgen.compare_intervals import MEASURES, Interval, run_interval
from readahead.loadgen.report_runs import LoadRun
from readahead.loadgen.sweep import SweepPoint, peak
from readahead.ruler.run import Flags, Floats
from readahead.ruler.scoring import RunScore
from readahead.ruler.table import number_text

PLAYED_APART_S_MIN = 0.05
"""Idle times nearer to one another than that are the same: timers and rounding."""


def sweep_table(points: Sequence[SweepPoint]) -> str:
    """A row per rate; the peak is bold."""
    best = peak(points)
    rows = []
    for point in points:
        score = point.score.score
        kind = ' class="peak"' if best is point else ""
        name = f"{point.rate_req_s:g} req/s" + (" (peak)" if best is point else "")
        cells = (
            number_text(score.smooth_goodput_censored_tok_s),
            number_text(score.throughput_tok_s),
            _percent(score.slo_attainment),
            number_text(score.user_idle_censored_s.mean if score.user_idle_censored_s else None),
            number_text(score.ttft_s.p50 if score.ttft_s else None),
            number_text(score.ttft_s.p99 if score.ttft_s else None),
            "yes" if point.is_valid else "no",
        )
        rows.append((name, cells, kind))
    heads = ("smooth goodput, tok/s", "throughput, tok/s", "promise kept", "idle mean, s",
             "TTFT p50, s", "TTFT p99, s", "valid")  # fmt: skip
    return _table("offered", heads, rows)


def played_table(runs: Sequence[LoadRun]) -> str:
    """The idle time of readers as they were played, and as the ruler has it; empty: the same."""
    rows = []
    for run in runs:
        played_s, ruled_s = run.played_idle_s, run.score.each.idle_censored_s
        both = ~np.isnan(played_s) & ~np.isnan(ruled_s)
        apart_s = np.abs(played_s - ruled_s)[both]
        if not (apart_s > PLAYED_APART_S_MIN).any():
            continue
        cells = [str(int((apart_s > PLAYED_APART_S_MIN).sum())), str(int(both.sum()))]
        for idle_s in (played_s[both], ruled_s[both]):
            cells += [number_text(float(idle_s.mean())), number_text(_p99(idle_s))]
        rows.append((run.label, cells, ""))
    heads = ("requests apart", "of", "as played: mean, s", "p99, s", "by the ruler: mean, s",
             "p99, s")  # fmt: skip
    return _table("", heads, rows) if rows else ""


def _p99(values: Floats) -> float:
    return float(np.quantile(values, 0.99))


def group_table(run: LoadRun, groups: Mapping[str, Flags], *, name: str) -> str:
    """A row per scenario or tenant, each scored alone over the whole run's time."""
    rows = []
    for group, kept in groups.items():
        found = run.only(kept)
        rows.append((group or "(none)", _group_cells(found), ""))
    heads = ("requests", "tokens", "smooth goodput, tok/s", "promise kept", "idle mean, s",
             "idle p99, s", "TTFT p50, s", "TTFT p99, s", "TPOT mean, s")  # fmt: skip
    return _table(name, heads, rows)


def comparison_table(found: Comparison) -> str:
    """A row per number: the means of all endpoints, and ratios to the first."""
    base, *others = found.labels
    heads = [base]
    for label in others:
        heads += [label, "ratio [95 %]"]
    rows = []
    for number, measure in enumerate(MEASURES):
        cells = [_number(found.of(base)[number].mean)]
        for label in others:
            one = found.of(label)[number]
            cells += [_number(one.mean), interval_text(one.ratio)]
        rows.append((measure.label, tuple(cells), ""))
    return _table("", tuple(heads), rows)


def interval_table(runs: Sequence[LoadRun]) -> str:
    """A row per number, a column per run, each with its interval."""
    rows = [
        (
            measure.label,
            tuple(_interval(run_interval(run.score, measure)) for run in runs),
            "",
        )
        for measure in MEASURES
    ]
    return _table("", tuple(run.label for run in runs), rows)


def _group_cells(found: RunScore) -> tuple[str, ...]:
    score = found.score
    idle, ttft, tpot = score.user_idle_censored_s, score.ttft_s, score.tpot_s
    return (
        str(score.requests),
        str(score.tokens),
        number_text(score.smooth_goodput_censored_tok_s),
        _percent(score.slo_attainment),
        number_text(idle.mean if idle else None),
        number_text(idle.p99 if idle else None),
        number_text(ttft.p50 if ttft else None),
        number_text(ttft.p99 if ttft else None),
        number_text(tpot.mean if tpot else None),
    )


def _interval(found: Interval | None) -> str:
    if found is None:
        return "-"
    if found.low != found.low:
        return number_text(found.value)
    return f"{number_text(found.value)} [{number_text(found.low)}, {number_text(found.high)}]"


def _number(value: float) -> str:
    return number_text(value if value == value else None)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _table(
    corner: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]
) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "".join(
        f"<tr{kind}><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}"
        "</tr>"
        for name, cells, kind in rows
    )
    return (
        f'<div class="wide"><table><thead><tr><th>{escape(corner)}</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
