"""The most benefit that any policy could give the users of a workload."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from readahead.core.reading.benefit import penalty
from readahead.core.reading.curves import Origin
from readahead.core.reading.score import Ruler
from readahead.ruler.run import Floats
from readahead.sim.bound.grid import Grid
from readahead.sim.bound.known import KnownRequest
from readahead.sim.bound.pieces import Piece, pieces_of
from readahead.sim.bound.program import Program, engines_share, spread
from readahead.sim.bound.rates import Rates


def benefit_bound_tokens(
    requests: Sequence[KnownRequest],
    rates: Rates,
    ruler: Ruler,
    *,
    grid: Grid,
    parts: int = 2,
) -> float:
    """The sum of n - alpha f(l) over all requests, literal or censored, is at most this, tokens.

    Proof: a run is a point of the program (program.py). Its penalty f(l) is no less than f of any
    one token's lateness, hence no less than their mean over a piece, each token's weighed by the
    cells that processed it; a token that did not come adds nothing. Within an answer no piece is
    begun before the one before it is whole, so shares that are delivered do not rise. Censored
    idle time is no less than literal.

    Ref: [SmoothGoodput] Eq. 10 for the benefit; the bound is ours.
    """
    grid.check(requests)
    program, spreads = Program(), []
    for index, request in enumerate(requests):
        if not request.has_reader or not request.output_tokens:
            continue
        lost = program.column(cost=ruler.alpha)
        before = None
        for piece in pieces_of(index, request, rates, parts=parts):
            one = spread(program, piece, grid, arrival_s=request.arrival_s)
            share = program.row(limit=1.0 if before is None else 0.0)
            program.add(share, one.columns, 1 / piece.tokens)
            if before is not None:
                program.add(share, before.columns, -1 / before.piece.tokens)
            if piece.is_read:
                for column in one.columns.tolist():
                    program.costs[column] = -1.0
                waits = program.row()
                penalties = _penalties(piece, request, ruler, starts_s=grid.starts_s[one.cells])
                program.add(waits, one.columns, penalties / piece.tokens)
                program.add(waits, lost, -1.0)
            spreads.append(one)
            before = one
    if not spreads:
        return 0.0
    engines_share(program, spreads, grid=grid, rates=rates)
    return -program.least()


def _penalties(piece: Piece, request: KnownRequest, ruler: Ruler, *, starts_s: Floats) -> Floats:
    """f(l), before alpha, where a token of this piece is processed in a cell, at least.

    Proof: it is delivered after the cell's start, and when engines can have it; of the latter the
    least over the piece is at an end, being linear. Every f rises with l. F0 falls with the
    answer's length, which is at most the whole; F3 rises with it, which is at least up to here.
    Due times that count from the first token (Origin.FIRST_TOKEN) are taken as never missed.
    """
    curve = ruler.curve(request.timeline())
    if curve.origin is Origin.FIRST_TOKEN:
        return np.zeros(len(starts_s))
    thinking, pace_tok_s = request.thinking_tokens, curve.pace_tok_s
    begun_s = curve.start_s(request.timeline())
    first, last = ((place - thinking) / pace_tok_s for place in (piece.first, piece.last))
    alone_s = min(piece.first_s - begun_s - first, piece.last_s - begun_s - last)
    idle_s = np.maximum(max(0.0, alone_s), starts_s - begun_s - last)
    found = [
        min(
            penalty(ruler.form, one_s, tokens=tokens, pace_tok_s=pace_tok_s, shape=ruler.shape)
            for tokens in (piece.first - thinking, request.output_tokens - thinking)
        )
        for one_s in idle_s.tolist()
    ]
    return np.array(found)
