"""The score as a page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

import matplotlib as mpl

from readahead.ruler import plots
from readahead.ruler.assess import FileScore, runs_of
from readahead.ruler.describe import ruler_text
from readahead.ruler.scoring import RunScore
from readahead.ruler.sweep import capacities, sweeps
from readahead.ruler.table import number_text, sections, short_names

TEMPLATE = Path(__file__).with_name("page.html")

STYLE = Path(__file__).with_name("page.css")

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a page may load: nothing. The browser holds it to that."""

READING_RUNS_MAX = 8
"""Runs whose users are drawn; the page says how many it leaves out."""


def page(files: Sequence[FileScore]) -> str:
    """The page of all runs. There is at least one."""
    runs = runs_of(files)
    names = short_names(runs)
    title = f"Score of {names[0]}" if len(runs) == 1 else f"Scores of {len(runs)} runs"
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=style(),
        policy=POLICY,
        settings=escape(ruler_text(runs[0].ruler)),
        cards=_cards(runs, names),
        sweep=_sweep(runs),
        reading=_reading(runs, names),
        legend=_legend(names),
        choices=_choices(runs, names),
        table=metrics_table(files, runs, names),
        findings=_findings(files, runs, names),
    )


def style() -> str:
    """The style sheet of pages; plots take their colours of text and grid from it."""
    return STYLE.read_text(encoding="utf-8")


def _cards(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    cards = []
    for found, name, swatch in zip(runs, names, swatches(len(runs)), strict=True):
        score, form = found.score, found.ruler.form.value
        idle = score.user_idle_censored_s
        p50, p99 = (None, None) if idle is None else (idle.p50, idle.p99)
        attained = "-" if score.slo_attainment is None else f"{100 * score.slo_attainment:.1f} %"
        cards.append(
            f'<div class="card"><div class="name">{swatch}{escape(name)}</div>'
            f'<div class="value">{number_text(score.smooth_goodput_tok_s)}'
            f" <small>tok/s</small></div>"
            f'<div class="more">smooth goodput, {form}</div>'
            f'<div class="more">censored {number_text(score.smooth_goodput_censored_tok_s)} · '
            f"of {number_text(score.throughput_tok_s)} delivered</div>"
            f'<div class="more">idle p50 {number_text(p50)} s, p99 {number_text(p99)} s · '
            f"promise kept {attained}</div></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _sweep(runs: Sequence[RunScore]) -> str:
    groups = sweeps(runs)
    if not groups:
        return ""
    said = "".join(
        f"<li>{escape(name)}: capacity {number_text(capacity)} req/s</li>"
        if capacity is not None
        else f"<li>{escape(name)}: even the lowest rate misses too many promises</li>"
        for name, capacity in capacities(groups).items()
    )
    return (
        "<h2>Over the offered rate</h2>"
        '<p class="soft">Runs whose names differ in numbers only make a line. Capacity is the'
        " highest rate up to which 90 % of the requests keep their promise.</p>"
        f'{framed(plots.sweep_plot(groups), is_wide=True)}<ul class="soft">{said}</ul>'
    )


def _reading(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    drawn = [
        framed(
            plots.reading_plot(found, f"{number} {name}"),
            name if len(runs) > 1 else "",
            is_wide=True,
        )
        for number, (found, name) in enumerate(zip(runs, names, strict=True))
        if number < READING_RUNS_MAX and found.each.read_tokens.any()
    ]
    if len(runs) > READING_RUNS_MAX:
        drawn.append(f'<p class="soft">and {len(runs) - READING_RUNS_MAX} more runs</p>')
    return "".join(drawn) or '<p class="soft">No user got a token.</p>'


def _choices(runs: Sequence[RunScore], names: Sequence[str]) -> str:
    pair = "".join(
        framed(draw(runs, names)) for draw in (plots.alpha_plot, plots.pace_plot, plots.idle_plot)
    )
    return (
        '<p class="soft">Solid: literal; dotted: censored, where a user who was left hanging'
        " counts. Vertical: the setting of this page.</p>"
        f'<div class="pair">{pair}</div>'
    )


def _legend(names: Sequence[str]) -> str:
    if len(names) == 1:
        return ""
    squares = swatches(len(names))
    items = (f"<span>{s}{escape(name)}</span>" for s, name in zip(squares, names, strict=True))
    return f'<div class="legend">{"".join(items)}</div>'


def metrics_table(
    files: Sequence[FileScore], runs: Sequence[RunScore], names: Sequence[str]
) -> str:
    """All metrics: a row for each, and a column for each run."""
    bodies = []
    for section in sections(files, runs):
        rows = (
            f"<tr><th>{escape(label)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}"
            "</tr>"
            for label, cells in section
        )
        bodies.append(f"<tbody>{''.join(rows)}</tbody>")
    heads = "".join(f"<th>{escape(name)}</th>" for name in names)
    return (
        f'<div class="wide"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"{''.join(bodies)}</table></div>"
    )


def _findings(files: Sequence[FileScore], runs: Sequence[RunScore], names: Sequence[str]) -> str:
    tricks = [
        f"{name}: {line}"
        for found, name in zip(runs, names, strict=True)
        for line in found.tricks.lines()
    ]
    notes = list(dict.fromkeys(note for found in runs for note in found.run.notes))
    problems = [f"{file.file}: cannot be scored: {file.error}" for file in files if file.error]
    for file in files:
        problems += [str(problem) for problem in file.problems.examples]
        hidden = file.problems.total - len(file.problems.examples)
        if hidden:
            problems.append(f"{file.file}: and {hidden} more of these kinds")
    return (
        _list("Tricks", tricks)
        + _list("Notes", notes)
        + _list("What the files leave open", problems)
    )


def _list(title: str, lines: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2><ul>{items}</ul>" if items else ""


def framed(svg: str, name: str = "", *, is_wide: bool = False) -> str:
    """A plot in its frame; a wide one can be pushed aside on a narrow screen."""
    head = f'<p class="name">{escape(name)}</p>' if name else ""
    return f'<div class="plot{" roomy" * is_wide}">{head}{svg}</div>'


def swatches(count: int) -> list[str]:
    """A square of each run's colour, as the plots have them."""
    with mpl.rc_context(fname=plots.STYLE):
        colours = mpl.rcParams["axes.prop_cycle"].by_key()["color"]
    if count == 1:
        return [""]
    return [
        f'<span class="swatch" style="background:#{colours[i % len(colours)].lstrip("#")}"></span>'
        for i in range(count)
    ]
