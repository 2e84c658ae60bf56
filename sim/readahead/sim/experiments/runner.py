"""Runs an experiment's cells, in several processes if wished; rows come in the cells' order."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from readahead.sim.experiments.experiment import Cell, Experiment, Row
from readahead.sim.experiments.raw_rows import rounded
from readahead.sim.experiments.registry import experiment


def run_cells(
    tried: Experiment, cells: Sequence[Cell], *, jobs: int, done: Callable[[], None]
) -> list[Row]:
    """All rows, rounded as they are kept. `done` is called once per cell.

    With several jobs the experiment must be one of the registry: processes find it by its name.
    An error in a cell is raised here, with the cell in a note.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, is {jobs}")
    if jobs == 1 or len(cells) < 2:
        found: list[Sequence[Row]] = []
        for cell in cells:
            found.append(tried.run_cell(cell))
            done()
    else:
        found = _in_processes(tried.name, cells, jobs=jobs, done=done)
    return [rounded(row) for rows in found for row in rows]


def _in_processes(
    name: str, cells: Sequence[Cell], *, jobs: int, done: Callable[[], None]
) -> list[Sequence[Row]]:
    found: list[Sequence[Row]] = [()] * len(cells)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=min(jobs, len(cells)), mp_context=context) as pool:
        places = {pool.submit(_run_cell, name, cell): n for n, cell in enumerate(cells)}
        try:
            for future in as_completed(places):
                found[places[future]] = future.result()
                done()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            error.add_note(f"in an experiment of {name}")
            raise
    return found


def _run_cell(name: str, cell: Cell) -> Sequence[Row]:
    return experiment(name).run_cell(cell)
