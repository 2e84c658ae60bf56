"""The score as one table: a row per metric, a column per run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from os.path import commonpath
from pathlib import PurePath

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from readahead.core.reading.benefit import Form
from readahead.core.reading.timeline import Outcome
from readahead.ruler.assess import FileScore, runs_of
from readahead.ruler.describe import pace_text, promise_text, ruler_text
from readahead.ruler.scoring import RunScore
from readahead.ruler.sweep import capacities, sweeps

RUNS_PER_TABLE = 4
"""More do not fit into 100 characters; they get a table of their own."""

NAME_CHARACTERS_MAX = 17
"""Width of a run's column."""

PROBLEMS_SHOWN_MAX = 12

_RATES = (
    ("SLO attainment", "slo_attainment"),
    ("goodput, req/s", "goodput_req_s"),
    ("goodput, tok/s", "goodput_tok_s"),
    ("throughput, tok/s", "throughput_tok_s"),
    ("effective throughput", "effective_throughput_tok_s"),
)
_INDEXES = (("Andes QoE", "andes_qoe"), ("fluidity index", "fluidity_index"))
_LATENCIES = (
    ("TTFT, s", "ttft_s"),
    ("TBT, s", "tbt_s"),
    ("TPOT, s", "tpot_s"),
    ("E2E, s", "e2e_s"),
)


def show(files: Sequence[FileScore], console: Console) -> None:
    """Prints the table, and below it what was left out and why."""
    runs = runs_of(files)
    names = short_names(runs)
    for start in range(0, len(runs), RUNS_PER_TABLE):
        some = slice(start, start + RUNS_PER_TABLE)
        console.print(_table(files, runs[some], names[some]))
    if runs:
        console.print(ruler_text(runs[0].ruler), style="dim", highlight=False)
    for name, highest in capacities(sweeps(runs)).items():
        none = "none: the lowest rate misses too many promises"
        text = none if highest is None else f"{number_text(highest)} req/s"
        console.print(f"sweep {name}: capacity {text}", highlight=False, markup=False)
    for note in dict.fromkeys(note for found in runs for note in found.run.notes):
        console.print(f"note: {note}", style="dim", highlight=False)
    for name, found in zip(names, runs, strict=True):
        for line in found.tricks.lines():
            console.print(f"{name}: {line}", style="magenta", highlight=False, markup=False)
    for file in files:
        _show_problems(file, console)


def short_names(runs: Sequence[RunScore]) -> list[str]:
    """The names of runs without the folder that all share."""
    files = [found.run.file for found in runs]
    folders = [str(PurePath(file).parent) for file in files]
    try:
        shared = commonpath(folders) if folders else ""
    except ValueError:
        shared = ""
    names = [str(PurePath(file).relative_to(shared)) if shared else file for file in files]
    return [
        f"{name} [{found.run.label}]" if found.run.label else name
        for name, found in zip(names, runs, strict=True)
    ]


def number_text(value: float | None) -> str:
    """A number with about four digits that matter."""
    if value is None:
        return "-"
    size = abs(value)
    if size == 0 or size >= 1000:
        return f"{value:.0f}"
    if size < 1e-3:
        return f"{value:.1e}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"


def _table(files: Sequence[FileScore], runs: Sequence[RunScore], names: Sequence[str]) -> Table:
    table = Table(pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(
            escape(name),
            justify="right",
            overflow="fold",
            max_width=NAME_CHARACTERS_MAX,
            min_width=9,
        )
    for section in sections(files, runs):
        for label, cells in section:
            table.add_row(label, *cells)
        table.add_section()
    return table


def sections(
    files: Sequence[FileScore], runs: Sequence[RunScore]
) -> list[list[tuple[str, list[str]]]]:
    """The rows of the table: a label, and a cell for each run."""
    left_out = {file.file: file.problems.left_out for file in files}
    parts = (_smooth(runs), _idle(), _promises(), _latencies(), _counts(left_out))
    return [
        [(label, [cell(found) for found in runs]) for label, cell in section] for section in parts
    ]


Cell = Callable[[RunScore], str]
Rows = Iterator[tuple[str, Cell]]


def _smooth(runs: Sequence[RunScore]) -> Rows:
    for form in runs[0].by_form:
        yield f"smooth goodput {form.value}, tok/s", partial(_form_text, form, "literal_tok_s")
        yield "  censored", partial(_form_text, form, "censored_tok_s")


def _idle() -> Rows:
    yield from _distribution("idle, s", "user_idle_s")
    yield "idle censored, s   mean", partial(_summary_text, "user_idle_censored_s", "mean")


def _promises() -> Rows:
    for label, name in _RATES:
        yield label, partial(_number_text, name)
    for label, name in _INDEXES:
        yield f"{label:<18} mean", partial(_summary_text, name, "mean")


def _latencies() -> Rows:
    for label, name in _LATENCIES:
        yield from _distribution(label, name)


def _counts(left_out: Mapping[str, int]) -> Rows:
    yield "offered, req/s", lambda found: number_text(found.run.offered_req_s())
    yield "duration, s", partial(_number_text, "duration_s")
    yield "pace, tok/s", pace_text
    yield "promise", lambda found: promise_text(found.run, found.ruler)
    yield "requests", lambda found: str(found.score.requests)
    for outcome in Outcome:
        yield f"  {outcome.value}", partial(_outcome_text, outcome)
    yield "  without a token", lambda found: str(int((found.run.tokens == 0).sum()))
    yield "  read by nobody", lambda found: str(len(found.run.readerless))
    yield "tokens", lambda found: str(found.score.tokens)
    yield "  to be read", lambda found: str(int(found.each.read_tokens.sum()))
    yield "left out of the file", lambda found: str(left_out[found.run.file])
    yield "token times spread", lambda found: str(found.run.estimated)


def _distribution(label: str, name: str) -> Rows:
    for number, statistic in enumerate(("mean", "p50", "p90", "p99")):
        shown = label if number == 0 else ""
        yield f"{shown:<18} {statistic}", partial(_summary_text, name, statistic)


def _form_text(form: Form, variant: str, found: RunScore) -> str:
    return number_text(getattr(found.by_form[form], variant))


def _number_text(name: str, found: RunScore) -> str:
    return number_text(getattr(found.score, name))


def _summary_text(name: str, statistic: str, found: RunScore) -> str:
    summary = getattr(found.score, name)
    return "-" if summary is None else number_text(getattr(summary, statistic))


def _outcome_text(outcome: Outcome, found: RunScore) -> str:
    return str(found.score.outcomes.get(outcome, 0))


def _show_problems(file: FileScore, console: Console) -> None:
    if file.error:
        console.print(
            f"{file.file}: cannot be scored: {file.error}",
            style="red",
            highlight=False,
            markup=False,
        )
    problems = file.problems
    if not problems.total:
        return
    kinds = ", ".join(f"{count} {kind.value}" for kind, count in problems.counts.items())
    console.print(
        f"{file.file}: {problems.left_out} left out; found: {kinds}",
        style="yellow",
        highlight=False,
        markup=False,
    )
    for problem in problems.examples[:PROBLEMS_SHOWN_MAX]:
        console.print(f"  {problem}", highlight=False, markup=False)
    if problems.total > PROBLEMS_SHOWN_MAX:
        console.print(f"  and {problems.total - PROBLEMS_SHOWN_MAX} more", highlight=False)
