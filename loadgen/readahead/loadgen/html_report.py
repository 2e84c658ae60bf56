"""The report of load as a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from readahead.loadgen import html_plots
from readahead.loadgen.assertions import Checked
from readahead.loadgen.compare import Comparison
from readahead.loadgen.html_settings import chips, settings_table
from readahead.loadgen.html_tables import (
    comparison_table,
    group_table,
    interval_table,
    played_table,
    sweep_table,
)
from readahead.loadgen.report_runs import LoadRun
from readahead.loadgen.sweep import SweepPoint, is_bracketed, peak, sweep_capacity_req_s
from readahead.ruler import plots
from readahead.ruler.assess import FileScore
from readahead.ruler.describe import ruler_text
from readahead.ruler.formats.detect import Format
from readahead.ruler.html_report import POLICY, framed, metrics_table, style, swatches
from readahead.ruler.table import number_text

TEMPLATE = Path(__file__).with_name("html_page.html")
CARDS_MAX = 8
"""More runs than that are rows of a table."""
RUNS_DRAWN_MAX = 6
"""Runs whose users and timelines are drawn: the page stays below some megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What a page is of."""

    runs: Sequence[LoadRun]
    """At least one."""
    points: Sequence[SweepPoint] = ()
    """Of a sweep, one for each run."""
    comparison: Comparison | None = None
    checked: Sequence[Checked] = ()


def page(report: LoadReport) -> str:
    """The page."""
    body = "".join(
        part(report)
        for part in (
            _cards,
            _checked,
            _sweep,
            _comparison,
            _several,
            _reading,
            _played,
            _over_time,
            _distributions,
            _groups,
            _metrics,
            _settings,
            _problems,
        )
    )
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(_title(report)),
        subtitle=escape(ruler_text(report.runs[0].score.ruler)),
        style=style(),
        policy=POLICY,
        chips=chips(report.runs),
        banner=_banner(report),
        body=body,
    )


def write_page(path: Path, report: LoadReport) -> None:
    """Writes the page.

    Raises:
        OSError: the disk does not take it.
    """
    path.write_text(page(report), encoding="utf-8")


def _title(report: LoadReport) -> str:
    targets = list(dict.fromkeys(str(run.settings.get("target", run.label)) for run in report.runs))
    if report.points:
        rates = [point.rate_req_s for point in report.points]
        return f"Sweep of {targets[0]}, {min(rates):g} to {max(rates):g} req/s"
    if report.comparison is not None:
        return f"{' against '.join(report.comparison.labels)}"
    return f"Load on {targets[0]}" if len(targets) == 1 else f"Load on {len(targets)} targets"


def _banner(report: LoadReport) -> str:
    several = len(report.runs) > 1
    reasons = [
        f"{run.label}: {reason}" if several else reason
        for run in report.runs
        for reason in run.invalid_because
    ]
    if any(run.description.get("is_complete") is False for run in report.runs):
        reasons.append("a run did not come to its end")
    if reasons:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in reasons)
        return f'<div class="banner bad"><span class="bad">Invalid.</span><ul>{items}</ul></div>'
    if not all(run.description for run in report.runs):
        return '<div class="banner">No description lies beside the records: validity unknown.</div>'
    return (
        '<div class="banner"><span class="good">Valid.</span> Requests were sent at their times, '
        "and none was dropped by the generator.</div>"
    )


def _cards(report: LoadReport) -> str:
    """A card per run; a lone run has one per number instead."""
    squares = swatches(len(report.runs))
    cards = []
    for run, square in zip(report.runs, squares[:CARDS_MAX], strict=False):
        smooth, *others = _card_entries(run)
        if len(report.runs) == 1:
            cards += [_card(name, value, [more]) for name, value, more in (smooth, *others)]
            continue
        name, value, more = smooth
        rest = [f"{name}, {more}", *(f"{label} {one} {two}" for label, one, two in others)]
        cards.append(_card(square + escape(run.label), value, rest))
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(name: str, value: str, more: Iterable[str]) -> str:
    number, _, unit = value.partition(" ")
    lines = "".join(f'<div class="more">{escape(line)}</div>' for line in more)
    return (
        f'<div class="card"><div class="name">{name}</div>'
        f'<div class="value">{escape(number)} <small>{escape(unit)}</small></div>{lines}</div>'
    )


def _card_entries(run: LoadRun) -> list[tuple[str, str, str]]:
    """Name, value and what is said below it."""
    score = run.score.score
    idle, ttft = score.user_idle_censored_s, score.ttft_s
    late_s = run.lateness_s[~np.isnan(run.lateness_s)]
    late = f"{1e3 * float(np.quantile(late_s, 0.99)):.2f} ms" if len(late_s) else "-"
    attained = "-" if score.slo_attainment is None else f"{100 * score.slo_attainment:.1f} %"
    ended = ", ".join(f"{count} {outcome.value}" for outcome, count in score.outcomes.items())
    return [
        (
            "smooth goodput (censored)",
            f"{number_text(score.smooth_goodput_censored_tok_s)} tok/s",
            f"of {number_text(score.throughput_tok_s)} delivered",
        ),
        (
            "idle",
            f"{number_text(idle.mean if idle else None)} s",
            f"mean; p50 {number_text(idle.p50 if idle else None)} s, "
            f"p99 {number_text(idle.p99 if idle else None)} s",
        ),
        (
            "TTFT",
            f"{number_text(ttft.p50 if ttft else None)} s",
            f"p50; p99 {number_text(ttft.p99 if ttft else None)} s; sends late p99 {late}",
        ),
        ("promise kept", attained, ended),
    ]


def _checked(report: LoadReport) -> str:
    if not report.checked:
        return ""
    rows = "".join(
        f"<tr><th>{escape(one.assertion.text)}</th><td>{escape(one.run)}</td>"
        f"<td>{'-' if one.value is None else f'{one.value:.6g}'}</td>"
        f'<td class="{"good" if one.is_held else "bad"}">{"holds" if one.is_held else "fails"}</td>'
        "</tr>"
        for one in report.checked
    )
    return f'<h2>Assertions</h2><div class="wide"><table><tbody>{rows}</tbody></table></div>'


def _sweep(report: LoadReport) -> str:
    if not report.points:
        return ""
    best = peak(report.points)
    said = "No rate gave a valid run with a score."
    if best is not None:
        said = (
            f"The peak of smooth goodput is {number_text(best.smooth_goodput_tok_s)} tok/s, "
            f"at {best.rate_req_s:g} req/s."
        )
        if not is_bracketed(report.points):
            said += " It lies at the edge of the sweep: the true one may lie outside."
    highest = sweep_capacity_req_s(report.points)
    said += (
        " Even the lowest rate misses too many promises."
        if highest is None
        else f" Promises are kept (90 %) up to {highest:g} req/s."
    )
    return (
        f'<h2>Over the offered rate</h2><p class="soft">{escape(said)}</p>'
        f"{framed(html_plots.sweep_plot(report.points), is_wide=True)}"
        f"{sweep_table(report.points)}"
    )


def _comparison(report: LoadReport) -> str:
    found = report.comparison
    if found is None:
        return ""
    parts = [
        "<h2>Ratios</h2>",
        f'<p class="soft">{found.blocks} blocks of each, in this order: '
        f"{escape(' '.join(found.order))}. Ratios are to {escape(found.labels[0])}; intervals are "
        "95 % bootstrap over pairs of blocks.</p>",
    ]
    for label in found.labels[1:]:
        rows = [(one.measure.label, one.ratio) for one in found.of(label) if one.ratio is not None]
        svg = html_plots.ratio_plot(rows, salt=label)
        parts.append(framed(svg, f"{label} / {found.labels[0]}", is_wide=True))
    parts.append(comparison_table(found))
    return "".join(parts)


def _several(report: LoadReport) -> str:
    if len(report.runs) < 2 or report.points or report.comparison is not None:
        return ""
    return (
        '<h2>Runs side by side</h2><p class="soft">Intervals are 95 % bootstrap over stretches of '
        f"neighbouring requests.</p>{interval_table(report.runs)}"
    )


def _reading(report: LoadReport) -> str:
    drawn = [
        framed(
            plots.reading_plot(run.score, f"{number} {run.label}"),
            run.label if len(report.runs) > 1 else "",
            is_wide=True,
        )
        for number, run in enumerate(_drawn(report))
        if run.score.each.read_tokens.any()
    ]
    return (
        '<h2>What users read</h2><p class="soft">Three users of each run, by idle time. Where the '
        f"reader catches up with what was delivered, he waits.</p>{_left_out(report)}"
        f"{''.join(drawn) or '<p>No user got a token.</p>'}"
    )


def _played(report: LoadReport) -> str:
    table = played_table(report.runs)
    if not table:
        return ""
    return (
        '<h2>Readers as they were played</h2><p class="soft">The ruler\'s reader keeps one pace to '
        "the end of the answer. Those of this load change theirs, skim, or leave, so that they "
        f"waited otherwise. Scores are by the ruler.</p>{table}"
    )


def _over_time(report: LoadReport) -> str:
    drawn = "".join(
        framed(
            html_plots.over_time_plot(run), run.label if len(report.runs) > 1 else "", is_wide=True
        )
        for run in _drawn(report)
    )
    return f"<h2>Over the run</h2>{drawn}"


def _distributions(report: LoadReport) -> str:
    runs = list(report.runs)
    names = [run.label for run in runs]
    squares = swatches(len(runs))
    legend = "".join(
        f"<span>{square}{escape(name)}</span>" for square, name in zip(squares, names, strict=True)
    )
    gap_s = html_plots.mean_gap_s(runs[0]) if len(runs) == 1 else None
    drawn = "".join(
        framed(svg)
        for svg in (
            plots.idle_plot([run.score for run in runs], names),
            html_plots.idle_histogram(runs),
            html_plots.ttft_plot(runs),
            html_plots.lateness_plot(runs, gap_s),
        )
    )
    shown = f'<div class="legend">{legend}</div>' if len(runs) > 1 else ""
    return f'<h2>Distributions</h2>{shown}<div class="pair">{drawn}</div>'


def _groups(report: LoadReport) -> str:
    parts = []
    for title, of in (
        ("By scenario", lambda run: run.scenarios),
        ("By tenant", lambda run: run.tenants),
    ):
        parts += _group_parts(title, report.runs, of)
    return "".join(parts)


def _group_parts(
    title: str, runs: Sequence[LoadRun], of: Callable[[LoadRun], tuple[str, ...]]
) -> list[str]:
    parts = []
    for run in runs:
        groups = run.groups(of(run))
        if groups:
            parts.append(group_table(run, groups, name=run.label if len(runs) > 1 else ""))
    return [f"<h2>{title}</h2>", *parts] if parts else []


def _metrics(report: LoadReport) -> str:
    files = [
        FileScore(
            file=run.score.run.file,
            format=Format.INTERCHANGE,
            runs=(run.score,),
            problems=run.problems,
            error="",
        )
        for run in report.runs
    ]
    scores = [run.score for run in report.runs]
    return f"<h2>All metrics</h2>{metrics_table(files, scores, [r.label for r in report.runs])}"


def _settings(report: LoadReport) -> str:
    return settings_table(report.runs[0].settings)


def _problems(report: LoadReport) -> str:
    lines = [str(problem) for run in report.runs for problem in run.problems.examples]
    lines += [f"{run.label}: {line}" for run in report.runs for line in run.score.tricks.lines()]
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>Findings</h2><ul>{items}</ul>" if items else ""


def _drawn(report: LoadReport) -> Sequence[LoadRun]:
    """The runs that are drawn one by one: of a sweep its peak and its ends, of a comparison the
    first block of each endpoint."""
    runs = list(report.runs)
    if report.comparison is not None:
        return runs[:: report.comparison.blocks]
    best = peak(report.points)
    if best is None or len(runs) <= 3:
        return runs[:RUNS_DRAWN_MAX]
    at = [point.rate_req_s for point in report.points].index(best.rate_req_s)
    return [runs[place] for place in sorted({0, at, len(runs) - 1})]


def _left_out(report: LoadReport) -> str:
    hidden = len(report.runs) - len(_drawn(report))
    return f'<p class="soft">{hidden} more runs are not drawn.</p>' if hidden else ""
