"""`readahead reproduce`: the findings of a paper, simulated again, as pages with their raw rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from readahead.sim.experiments.experiment import Scope
    from readahead.sim.experiments.page import Reported

NOT_WRITTEN_EXIT = 4
FULL_OUT, QUICK_OUT = Path("experiments"), Path("build/experiments")

Quick = Annotated[
    bool, typer.Option("--quick", help="Minutes instead of most of an hour; verdicts may differ.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="One experiment; repeatable."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE,…",
        help="Only the cells whose parameter has one of these values, as machine=13B-A100; "
        "repeatable. The page says what was left out.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the pages. Default: experiments, or build/experiments if quick.",
        file_okay=False,
    ),
]
Jobs = Annotated[int, typer.Option(min=1, max=256, help="Processes.")]
PagesOnly = Annotated[
    bool, typer.Option("--pages-only", help="Run nothing: make the pages anew from the raw rows.")
]


def reproduce(
    *,
    quick: Quick = False,
    only: Only = None,
    where: Where = None,
    out: Out = None,
    jobs: Jobs = 2,
    pages_only: PagesOnly = False,
) -> None:
    """Runs the experiments of arXiv 2410.14257 in the simulator, and writes a page on each.

    The capacity table of arXiv 2504.08784 takes hours, and is made only by `--only capacity`.
    Nothing is measured; all times come from a model. Same commit, same rows.
    Exit status: 0 done, whatever the verdicts; 2 wrong usage; 4 a file could not be written.
    """
    _require_extras()
    from rich.console import Console

    from readahead.sim.experiments.experiment import Scope
    from readahead.sim.experiments.registry import names, usual_names

    chosen = only or usual_names()
    unknown = [name for name in chosen if name not in names()]
    if unknown:
        raise typer.BadParameter(f"--only must be one of {', '.join(names())}, is {unknown[0]!r}")
    scope = Scope.QUICK if quick else Scope.FULL
    folder = out or (QUICK_OUT if quick else FULL_OUT)
    console = Console()
    try:
        if pages_only:
            _pages(only, folder)
        else:
            _run(chosen, scope, folder, _Amount(jobs=jobs, only=_wanted(where)), console)
        _summary(folder, console)
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(NOT_WRITTEN_EXIT) from error


def _require_extras() -> None:
    try:
        import matplotlib
        import rich
        import scipy
    except ImportError as error:
        typer.echo(f"error: {error}; install readahead[sim]", err=True)
        raise typer.Exit(1) from error
    del matplotlib, rich, scipy


def _pages(only: list[str] | None, folder: Path) -> None:
    from readahead.sim.experiments.raw_rows import RowsError
    from readahead.sim.experiments.registry import experiment
    from readahead.sim.experiments.reproduce import conclude_again, present

    try:
        for name in only or present(folder):
            conclude_again(experiment(name), folder)
    except RowsError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Amount:
    """How much is run, and by how many processes."""

    jobs: int
    only: Mapping[str, Sequence[str]]
    """Values of cells' parameters, by name."""


def _wanted(where: list[str] | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in where or []:
        name, equals, values = one.partition("=")
        if not name or not equals or not values:
            raise typer.BadParameter(f"--where must be NAME=VALUE,…, is {one!r}")
        found.setdefault(name, []).extend(values.split(","))
    return found


def _run(names: list[str], scope: Scope, folder: Path, amount: _Amount, console: Console) -> None:
    from readahead.sim.experiments.registry import experiment
    from readahead.sim.experiments.reproduce import chosen_cells
    from readahead.sim.experiments.reproduce import reproduce as run

    with _progress(console) as progress:
        tried = [experiment(name) for name in names]
        try:
            totals = [len(chosen_cells(one, scope, amount.only)) for one in tried]
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        bars = [
            progress.add_task(one.name, total=total, start=False)
            for one, total in zip(tried, totals, strict=True)
        ]
        for one, bar in zip(tried, bars, strict=True):
            progress.start_task(bar)
            done = partial(progress.advance, bar)
            run(one, scope, folder, jobs=amount.jobs, only=amount.only, done=done)


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


def _summary(folder: Path, console: Console) -> None:
    from rich.table import Table

    from readahead.sim.experiments.reproduce import summarise

    every: list[Reported] = summarise(folder)
    table = Table(title="SIMULATED: findings", show_lines=True)
    for column in ("experiment", "finding", "paper", "ours", "verdict"):
        table.add_column(column, overflow="fold")
    for one in every:
        for claim in one.findings.claims:
            table.add_row(
                one.experiment.name, claim.finding, claim.paper, claim.ours, claim.verdict.value
            )
    console.print(table)
    console.print(f"pages in {folder}; simulated: nothing was measured", highlight=False)
