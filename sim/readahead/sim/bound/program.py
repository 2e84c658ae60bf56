"""The linear program that both bounds share: tokens over cells of time, in what engines can do.

Proof that a run is one of its points: spread each iteration evenly over the time it takes, so that
a cell gets of it the share that lies in the cell. Shares of an iteration keep its limits (entries,
tokens, KV, each line of its time), so that their sums do, with `iterations` the sum of the shares;
and the time that they take in a cell is at most engines times its length. Work that made no
delivered token is left out, which lowers no sum that is bounded from below. A token is processed
no later than it is delivered, and no sooner than its request and the tokens before it allow.
Cutting a cell in two only adds limits: a point of the finer program, summed, is one of the coarser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array

from readahead.ruler.run import Floats, Integers
from readahead.sim.bound.grid import Grid
from readahead.sim.bound.pieces import Piece, token_s
from readahead.sim.bound.rates import Rates

NEVER_EARLIER_S = 1e-9
"""By how much sums of floats may let a token seem to come before its time."""


@dataclass(slots=True, kw_only=True)
class Program:
    """Columns that are 0 or more, and rows that are at most a limit."""

    costs: list[float] = field(default_factory=list)
    """Of each column; their sum is made small."""
    uppers: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    rows: list[Integers] = field(default_factory=list)
    columns: list[Integers] = field(default_factory=list)
    values: list[Floats] = field(default_factory=list)

    def column(self, cost: float = 0.0, upper: float = np.inf) -> int:
        """One more column."""
        self.costs.append(cost)
        self.uppers.append(upper)
        return len(self.costs) - 1

    def row(self, limit: float = 0.0) -> int:
        """One more row, without terms."""
        self.limits.append(limit)
        return len(self.limits) - 1

    def add(self, rows: int | Integers, columns: int | Integers, values: float | Floats) -> None:
        """Adds terms: rows, columns and values of one length, or one for all."""
        row, column, value = np.broadcast_arrays(
            np.atleast_1d(rows), np.atleast_1d(columns), np.atleast_1d(values)
        )
        self.rows.append(row.astype(np.int64))
        self.columns.append(column.astype(np.int64))
        self.values.append(value.astype(np.float64))

    def least(self) -> float:
        """The least cost.

        Raises:
            RuntimeError: the solver gave up, so that there is no bound.
        """
        shape = (len(self.limits), len(self.costs))
        places = (np.concatenate(self.rows), np.concatenate(self.columns))
        matrix = coo_array((np.concatenate(self.values), places), shape=shape).tocsr()
        bounds = np.column_stack([np.zeros(len(self.costs)), self.uppers])
        found = linprog(
            self.costs, A_ub=matrix, b_ub=np.array(self.limits), bounds=bounds, method="highs"
        )
        if found.status != 0:
            raise RuntimeError(f"the bound's program has no answer: {found.message}")
        return float(found.fun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A piece over cells."""

    piece: Piece
    cells: Integers
    columns: Integers
    """Of the tokens of the piece that are processed in each cell."""


def spread(
    program: Program,
    piece: Piece,
    grid: Grid,
    *,
    arrival_s: float,
    due_s: float = np.inf,
) -> Spread:
    """Columns for a piece wherever it may be processed, up to when it is due.

    Proof: the first token is processed after its request came; each other one in the `step_s`
    before it is there at the earliest, or later. A request is in one iteration at a time, so that
    d seconds of a cell have room for d / step_s tokens.
    """
    begin_s = arrival_s if piece.first == 1 else piece.first_s - piece.step_s
    lows_s = np.maximum(grid.starts_s, begin_s - NEVER_EARLIER_S)
    highs_s = np.minimum(grid.ends_s, due_s + NEVER_EARLIER_S)
    cells = np.flatnonzero(lows_s < highs_s)
    room: NDArray[np.float64] = np.full(len(cells), float(piece.tokens))
    if piece.step_s > 0:
        room = np.minimum(room, (highs_s - lows_s)[cells] / piece.step_s)
    columns = np.array([program.column(upper=upper) for upper in room.tolist()], dtype=np.int64)
    return Spread(piece=piece, cells=cells, columns=columns)


def engines_share(program: Program, spreads: Sequence[Spread], *, grid: Grid, rates: Rates) -> None:
    """Rows for what all engines together can do in each cell; the last cell has no limit."""
    lengths_s = np.diff(grid.edges_s)
    iterations = np.array([program.column() for _ in lengths_s], dtype=np.int64)
    for line in rates.lines:
        rows = _rows(program, rates.engines * lengths_s)
        program.add(rows, iterations, line.iteration_s)
        for one in spreads:
            _into(program, rows, one, token_s(line, one.piece, rates))
    for name, most in (
        ("entries", rates.entries_max),
        ("computed_tokens", rates.tokens_max),
        ("kv_tokens", rates.kv_tokens),
    ):
        rows = _rows(program, np.zeros(len(lengths_s)))
        program.add(rows, iterations, -1.0)
        for one in spreads:
            _into(program, rows, one, getattr(one.piece, name) / most)


def _rows(program: Program, limits: Floats) -> Integers:
    return np.array([program.row(limit) for limit in limits.tolist()], dtype=np.int64)


def _into(program: Program, rows: Integers, one: Spread, value: float) -> None:
    limited = one.cells < len(rows)
    program.add(rows[one.cells[limited]], one.columns[limited], value)
