"""All of `readahead reproduce` but its screen: cells to rows, rows to pages."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from readahead.sim.experiments.experiment import Cell, Experiment, Row, Scope
from readahead.sim.experiments.page import PAGE, Reported, summary_page, write_page
from readahead.sim.experiments.raw_rows import FILE, Origin, read_rows, write_rows
from readahead.sim.experiments.registry import experiment, names
from readahead.sim.experiments.runner import run_cells

Progress = Callable[[], None]
"""Called once per cell that is done."""
Wanted = Mapping[str, Sequence[str]]
"""Values of cells' parameters, by name."""


def chosen_cells(
    tried: Experiment, scope: Scope, only: Wanted = MappingProxyType({})
) -> list[Cell]:
    """The cells whose parameters have one of the wanted values each.

    Raises:
        ValueError: no cell has a parameter of that name, or none has that value.
    """
    cells = list(tried.cells(scope))
    for name, values in only.items():
        there = {str(cell.parameters[name]) for cell in cells if name in cell.parameters}
        for value in values:
            if value not in there:
                shown = ", ".join(sorted(there)) or "-"
                raise ValueError(f"{tried.name}: no cell has {name}={value}; {name} has {shown}")
        cells = [cell for cell in cells if str(cell.parameters.get(name)) in values]
    return cells


def reproduce(
    tried: Experiment,
    scope: Scope,
    out: Path,
    *,
    jobs: int,
    only: Wanted = MappingProxyType({}),
    done: Progress = lambda: None,
) -> Reported:
    """Runs an experiment, or only some of its cells, and writes rows, pictures and page into its
    folder below `out`.

    Raises:
        OSError: the disk does not take them.
        ValueError: there are no such cells.
    """
    rows = run_cells(tried, chosen_cells(tried, scope, only), jobs=jobs, done=done)
    origin = Origin(
        experiment=tried.name,
        scope=scope,
        command=command(tried.name, scope, only),
        commit=commit(),
        seeds=len({row["seed"] for row in rows}),
    )
    write_rows(out / tried.name, origin, rows)
    return conclude_again(tried, out)


def conclude_again(tried: Experiment, out: Path) -> Reported:
    """Makes the page anew from the rows that are there.

    Raises:
        OSError: they are not there, or the disk does not take the page.
        RowsError: they are not rows.
    """
    reported = reported_from(tried, out)
    write_page(out / tried.name, reported)
    return reported


def reported_from(tried: Experiment, out: Path) -> Reported:
    """What the rows below `out` say."""
    origin, rows = read_rows(out / tried.name)
    return Reported(experiment=tried, origin=origin, findings=tried.conclude(rows))


def present(out: Path) -> list[str]:
    """The experiments that have rows below `out`, in the registry's order."""
    return [name for name in names() if (out / name / FILE).exists()]


def write_summary(out: Path, every: Sequence[Reported]) -> None:
    """Writes the page of all experiments.

    Raises:
        OSError: the disk does not take it.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(summary_page(every, _others(out)), encoding="utf-8")


def summarise(out: Path) -> list[Reported]:
    """The page of all experiments that have rows, from those."""
    every = [reported_from(experiment(name), out) for name in present(out)]
    write_summary(out, every)
    return every


def _others(out: Path) -> str:
    """Experiments beside these that have a page of their own."""
    pages = sorted(path for path in out.glob(f"*/{PAGE}") if path.parent.name not in names())
    if not pages:
        return ""
    lines = []
    for path in pages:
        title = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.parent.name}/{PAGE})")
    return "Beside these:\n\n" + "\n".join(lines)


def command(name: str, scope: Scope, only: Wanted = MappingProxyType({})) -> str:
    """What makes these rows again."""
    quick = " --quick" if scope is Scope.QUICK else ""
    where = "".join(f" --where {name}={','.join(values)}" for name, values in only.items())
    return f"readahead reproduce{quick} --only {name}{where}"


def commit() -> str:
    """Of the code that runs."""
    here = Path(__file__).parent
    found = _git(here, "rev-parse", "--short=12", "HEAD")
    if not found:
        return "unknown"
    changed = _git(here, "status", "--porcelain", "--untracked-files=no", ".", "../../../../core")
    return f"{found}-dirty" if changed else found


def _git(here: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def rows_of(name: str, out: Path) -> list[Row]:
    """The raw rows of an experiment below `out`."""
    return read_rows(out / name)[1]
