"""The most requests that any policy could serve as promised."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import assert_never

from readahead.core.reading.curves import (
    EPSILON_S,
    EndToEnd,
    Origin,
    ReadingCurve,
    StagedCurve,
    TtftTbt,
    TtftTpot,
)
from readahead.core.reading.score import Ruler
from readahead.sim.bound.grid import Grid
from readahead.sim.bound.known import KnownRequest
from readahead.sim.bound.pieces import pieces_of
from readahead.sim.bound.program import Program, engines_share, spread
from readahead.sim.bound.rates import Rates

SOLVER_TOLERANCE = 1e-6
"""A count this little below a whole one is that one."""


def attained_bound(
    requests: Sequence[KnownRequest],
    rates: Rates,
    ruler: Ruler,
    *,
    grid: Grid,
    parts: int = 2,
) -> int:
    """At most so many requests come to their end with each token in time.

    Proof: a run is a point of the program (program.py). Of a request that kept its promise every
    token is processed by when it was due, so that the columns up to that time hold each piece in
    full; of another the same holds for a share of 0. Shares need not be 0 or 1 here, which
    only adds points; what they sum to in a run is a whole number.
    """
    grid.check(requests)
    program, spreads = Program(), []
    for index, request in enumerate(requests):
        pieces = pieces_of(index, request, rates, parts=parts) if request.output_tokens else ()
        dues_s = [latest_due_s(request, ruler, piece.last) for piece in pieces]
        firsts_s = [latest_due_s(request, ruler, piece.first) for piece in pieces]
        if not pieces or any(
            piece.first_s > first_s or piece.last_s > last_s
            for piece, first_s, last_s in zip(pieces, firsts_s, dues_s, strict=True)
        ):
            continue
        kept = program.column(cost=-1.0, upper=1.0)
        for piece, due_s in zip(pieces, dues_s, strict=True):
            one = spread(program, piece, grid, arrival_s=request.arrival_s, due_s=due_s)
            row = program.row()
            program.add(row, kept, 1.0)
            program.add(row, one.columns, -1 / piece.tokens)
            spreads.append(one)
    if not spreads:
        return 0
    engines_share(program, spreads, grid=grid, rates=rates)
    return math.floor(-program.least() + SOLVER_TOLERANCE)


def latest_due_s(request: KnownRequest, ruler: Ruler, place: int) -> float:
    """When token `place` of an answer that keeps its promise is there at the latest; inf: any time.

    Where a token is held to the one before it, or to the first, that one came when it was due;
    where only some are looked at, the token is there when the next of those is. A token may be
    EPSILON_S late, which a chain of them adds up.
    """
    promise, tokens = ruler.promise(request.timeline()), request.output_tokens
    slack_s = EPSILON_S * tokens
    match promise:
        case ReadingCurve():
            if promise.origin is Origin.FIRST_TOKEN or place <= request.thinking_tokens:
                return math.inf
            begun_s = promise.start_s(request.timeline())
            return begun_s + (place - request.thinking_tokens) / promise.pace_tok_s + slack_s
        case TtftTbt():
            after_s = (place - 1) * promise.tbt_s
            return request.arrival_s + promise.ttft_s + after_s + slack_s
        case TtftTpot():
            after_s = (tokens - 1) * promise.tpot_s if place > 1 else 0.0
            return request.arrival_s + promise.ttft_s + after_s + slack_s
        case EndToEnd():
            return request.arrival_s + promise.e2e_s + slack_s
        case StagedCurve():
            late_s = request.arrival_s + promise.ttft_s * (1 + promise.tolerance) + slack_s
            every = promise.check_every_tokens
            looked_at = 1 if place == 1 else min(tokens, -(-place // every) * every)
            last = promise.due_times_s(request.timeline((late_s,) * looked_at))[-1]
            return last + slack_s
        case _:
            assert_never(promise)
