"""What each request of a run was worth, in arrays: the formulas of core, many requests at once.

tests/property/test_ruler_agreement.py holds them to core's, which say what each means.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from readahead.core.reading.benefit import Form, Shape
from readahead.core.reading.curves import (
    EPSILON_S,
    EndToEnd,
    Origin,
    Slo,
    TtftTbt,
    TtftTpot,
)
from readahead.core.reading.metrics import andes_qoe as andes
from readahead.core.reading.metrics import effective_throughput_tok_s as effective
from readahead.core.reading.metrics import fluidity_index as fluidity
from readahead.core.reading.metrics.slo_attainment import is_attained
from readahead.core.reading.score import Ruler
from readahead.ruler.matrices import Matrix, matrices
from readahead.ruler.run import Flags, Floats, Integers, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A value for each request of the run; nan where a metric is undefined."""

    paces_tok_s: Floats
    read_tokens: Integers
    """Tokens that somebody reads."""
    has_reader: Flags
    idle_s: Floats
    idle_censored_s: Floats
    attained: Flags
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    effective_tokens: Floats
    andes_qoe: Floats
    fluidity_index: Floats


def columns(run: Run, ruler: Ruler, *, observed_until_s: float) -> Columns:
    """All values of all requests."""
    paces = np.where(np.isnan(run.paces_tok_s), ruler.pace_tok_s, run.paces_tok_s)
    read, has_reader = run.as_read(), run.has_reader
    starts_s = _starts_s(read, ruler, paces)
    late_s, gap_s = np.full(run.requests, -np.inf), np.zeros(run.requests)
    effective_tokens, qoe, index = (np.zeros(run.requests) for _ in range(3))
    for matrix in matrices(read):
        rows = matrix.requests
        late_s[rows] = _late_s(matrix, starts_s[rows], paces[rows])
        effective_tokens[rows] = _effective_tokens(matrix, starts_s[rows], paces[rows])
        qoe[rows] = _andes_qoe(matrix, run.arrivals_s[rows])
        if read is run:  # the usual case: one pass does for both
            gap_s[rows] = _largest_gap_s(matrix)
            index[rows] = _fluidity_index(matrix, run.arrivals_s[rows])
    for matrix in () if read is run else matrices(run):
        rows = matrix.requests
        gap_s[rows] = _largest_gap_s(matrix)
        index[rows] = _fluidity_index(matrix, run.arrivals_s[rows])
    tokens, firsts_s, lasts_s = run.tokens, run.firsts_s, run.token_lasts_s
    with np.errstate(divide="ignore", invalid="ignore"):
        tpot_s = np.where(tokens > 1, (lasts_s - firsts_s) / (tokens - 1), np.nan)
    return Columns(
        paces_tok_s=paces,
        read_tokens=read.tokens,
        has_reader=has_reader,
        idle_s=np.where(has_reader, np.maximum(0.0, late_s), np.nan),
        idle_censored_s=np.where(
            has_reader,
            _censored_s(run, late_s, starts_s + (read.tokens + 1) / paces, observed_until_s),
            np.nan,
        ),
        attained=_attained(run, ruler, late_s=late_s, gap_s=gap_s),
        ttft_s=firsts_s - run.arrivals_s,
        tpot_s=tpot_s,
        e2e_s=lasts_s - run.arrivals_s,
        effective_tokens=effective_tokens,
        andes_qoe=np.where(has_reader, qoe, np.nan),
        fluidity_index=index,
    )


def idle_at_pace_s(run: Run, ruler: Ruler, *, pace_tok_s: float) -> Floats:
    """Idle time of each request, if everybody read at this pace."""
    paces, read = np.full(run.requests, pace_tok_s), run.as_read()
    starts_s = _starts_s(read, ruler, paces)
    idle_s = np.where(run.has_reader, 0.0, np.nan)
    for matrix in matrices(read):
        rows = matrix.requests
        idle_s[rows] = np.maximum(0.0, _late_s(matrix, starts_s[rows], paces[rows]))
    return idle_s


def benefits(
    each: Columns,
    ruler: Ruler,
    idle_s: Floats,
    *,
    form: Form | None = None,
    paces_tok_s: Floats | None = None,
) -> Floats:
    """n - alpha f(l) of each request, tokens; 0 of one that nobody reads.

    Under the ruler's form and at the users' own paces unless others are given.
    """
    lost = penalties(
        form or ruler.form,
        idle_s,
        tokens=each.read_tokens.astype(np.float64),
        paces_tok_s=each.paces_tok_s if paces_tok_s is None else paces_tok_s,
        shape=ruler.shape,
    )
    return np.where(each.has_reader, each.read_tokens - ruler.alpha * lost, 0.0)


def penalties(
    form: Form, idle_s: Floats, *, tokens: Floats, paces_tok_s: Floats, shape: Shape
) -> Floats:
    """f(l) of each request, before the weight alpha."""
    match form:
        case Form.F0:
            share = paces_tok_s * idle_s / np.maximum(tokens, 1)
            return np.where(tokens > 0, np.minimum(1.0, share), idle_s > 0)
        case Form.F1:
            readable: Floats = paces_tok_s * idle_s
            return readable
        case Form.F2:
            return idle_s
        case Form.F3:
            return np.minimum(tokens, paces_tok_s * idle_s)
        case Form.F4:
            capped: Floats = -shape.cap_tokens * np.expm1(-idle_s / shape.tau_s)
            return capped
        case Form.F5:
            beyond: Floats = paces_tok_s * np.maximum(0.0, idle_s - shape.tolerance_s)
            return beyond
        case _:
            assert_never(form)


def gaps_s(run: Run) -> Floats:
    """All gaps between neighbouring tokens of one request, of all requests together."""
    if len(run.times_s) < 2:
        return np.empty(0)
    borders = np.unique(run.offsets)
    borders = borders[(borders > 0) & (borders < len(run.times_s))]
    is_within = np.ones(len(run.times_s) - 1, dtype=np.bool_)
    is_within[borders - 1] = False
    return np.diff(run.times_s)[is_within]


def _starts_s(read: Run, ruler: Ruler, paces: Floats) -> Floats:
    """The time t of each request with d_i = t + i / pace, of the tokens that are read."""
    starts_s: Floats = read.arrivals_s + ruler.offset_s
    if ruler.origin is Origin.FIRST_TOKEN:
        starts_s = read.firsts_s + ruler.offset_s - 1 / paces
        starts_s[np.isnan(starts_s)] = np.inf
    return starts_s


def _late_s(matrix: Matrix, starts_s: Floats, paces: Floats) -> Floats:
    """max over i of t_i - d_i. Padding repeats the last time, due later: it never counts."""
    late_s = matrix.times_s - starts_s[:, np.newaxis]
    late_s -= np.arange(1, matrix.times_s.shape[1] + 1) / paces[:, np.newaxis]
    worst_s: Floats = late_s.max(axis=1)
    return worst_s


def _largest_gap_s(matrix: Matrix) -> Floats:
    if matrix.times_s.shape[1] < 2:
        return np.zeros(len(matrix.requests))
    largest_s: Floats = np.diff(matrix.times_s, axis=1).max(axis=1)
    return largest_s


def _censored_s(run: Run, late_s: Floats, next_due_s: Floats, observed_until_s: float) -> Floats:
    lasts_s = run.lasts_s
    until_s = np.where(np.isnan(run.ended_s), np.maximum(lasts_s, observed_until_s), lasts_s)
    awaited_s = until_s - next_due_s
    censored_s: Floats = np.where(run.ended_normally, late_s, np.maximum(late_s, awaited_s))
    return np.maximum(censored_s, 0.0)


def _attained(run: Run, ruler: Ruler, *, late_s: Floats, gap_s: Floats) -> Flags:
    """Which requests came to their own end with each token in time."""
    # Core says: in time up to EPSILON_S, what was promised goes before what is asked of all, and
    # what nobody reads is never late: late_s is -inf there.
    met = late_s <= EPSILON_S
    if ruler.slo is not None:
        met = _met(run, ruler.slo, np.arange(run.requests), gap_s)
    groups: dict[Slo, list[int]] = defaultdict(list)
    for index, slo in run.slos.items():
        groups[slo].append(index)
    for slo, indexes in groups.items():
        rows = np.array(indexes)
        met[rows] = _met(run, slo, rows, gap_s)
    flags: Flags = met & run.ended_normally
    return flags


def _met(run: Run, slo: Slo, rows: Integers, gap_s: Floats) -> Flags:
    arrivals_s, firsts_s = run.arrivals_s[rows], run.firsts_s[rows]
    lasts_s, tokens = run.token_lasts_s[rows], run.tokens[rows]
    met: Flags
    match slo:
        case TtftTbt(ttft_s=ttft_s, tbt_s=tbt_s):
            met = gap_s[rows] <= tbt_s + EPSILON_S
            met &= firsts_s <= arrivals_s + ttft_s + EPSILON_S
        case TtftTpot(ttft_s=ttft_s, tpot_s=tpot_s):
            met = lasts_s <= firsts_s + (tokens - 1) * tpot_s + EPSILON_S
            met &= firsts_s <= arrivals_s + ttft_s + EPSILON_S
        case EndToEnd(e2e_s=e2e_s):
            met = lasts_s <= arrivals_s + e2e_s + EPSILON_S
        case _:
            met = np.array([is_attained(run.timeline(int(row)), slo) for row in rows], np.bool_)
    return met


def _effective_tokens(matrix: Matrix, starts_s: Floats, paces: Floats) -> Floats:
    """Tokens, each weighted by how much its reader had unread when it came."""
    pace, index = paces[:, np.newaxis], np.arange(matrix.times_s.shape[1])
    # The recursion reads_until = max(reads_until, t) + 1 / pace, unrolled.
    behind_s = np.empty_like(matrix.times_s)
    behind_s[:, 0] = starts_s + 1 / paces
    behind_s[:, 1:] = (matrix.times_s - index / pace)[:, :-1]
    reads_until_s = np.maximum.accumulate(behind_s, axis=1) + index / pace
    unread = np.clip((reads_until_s - matrix.times_s) * pace, 0.0, index)
    share = unread / matrix.lengths[:, np.newaxis]
    weights = (effective.NONE_SHARE - share) / (effective.NONE_SHARE - effective.FULL_SHARE)
    summed: Floats = (np.clip(weights, 0.0, 1.0) * matrix.is_token).sum(axis=1)
    return summed


def _andes_qoe(matrix: Matrix, arrivals_s: Floats) -> Floats:
    n, speed = matrix.lengths, andes.SPEED_TOK_S
    starts_s = (arrivals_s + andes.TTFT_TARGET_S)[:, np.newaxis]
    due_s = np.arange(1, matrix.times_s.shape[1] + 1) / speed
    lag_s = np.maximum.accumulate(matrix.times_s - starts_s - due_s, axis=1)
    np.maximum(lag_s, 0.0, out=lag_s)
    lasts_s = lag_s[:, -1]  # Padding, due later, lags less: the running maximum stays.
    behind_s = (lag_s * matrix.is_token).sum(axis=1)
    whole_s = n * lasts_s + n * (n - 1) / 2 / speed
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(behind_s > 0, 1 - behind_s / whole_s, 1.0)


def _fluidity_index(matrix: Matrix, arrivals_s: Floats) -> Floats:
    """The recursion deadline = max(deadline, t) + bound, unrolled."""
    bound_s, index = fluidity.TBT_BOUND_S, np.arange(matrix.times_s.shape[1])
    deadlines_s = np.empty_like(matrix.times_s)
    deadlines_s[:, 0] = arrivals_s + fluidity.TTFT_BOUND_S
    deadlines_s[:, 1:] = (matrix.times_s - index * bound_s)[:, :-1]
    deadlines_s = np.maximum.accumulate(deadlines_s, axis=1) + index * bound_s
    late_s = matrix.times_s - deadlines_s
    is_late = late_s > EPSILON_S  # Padding never is: its deadlines follow its time.
    passed = np.where(is_late, 1 + np.floor(late_s / bound_s + EPSILON_S), 0.0)
    missed = passed.sum(axis=1)
    index_of: Floats = 1 - missed / (missed + matrix.lengths - is_late.sum(axis=1))
    return index_of
