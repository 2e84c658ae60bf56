"""Laws of length distributions, whatever their tables."""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.workload.lengths import QuantileLength, QuantileTable
from readahead.workload.lengths_joint import (
    CopulaPair,
    GridPair,
    IndependentPair,
    LengthPair,
    ScaledPair,
)

COUNT = 20_000
DISTANCE_MAX = 2.8 / COUNT**0.5
"""Kolmogorov and Smirnov: a true sample is farther off less than once in a million."""


@st.composite
def tables(draw: st.DrawFn) -> QuantileTable:
    """Any table of lengths."""
    inner = draw(st.lists(st.floats(0.001, 0.999), max_size=8, unique=True))
    levels = [0.0, *sorted(inner), 1.0]
    steps = st.floats(0, 5000)
    heights = itertools.accumulate([1.0, *(draw(steps) for _ in levels[1:])])
    return QuantileTable(quantiles=tuple(levels), values=tuple(heights))


def _ranks(values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles: npt.NDArray[np.float64] = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return middles


@given(table=tables(), levels=st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_quantiles_do_not_fall(table: QuantileTable, levels: list[float]) -> None:
    """A higher level has at least the length of a lower one; one and many agree."""
    lengths = QuantileLength(table=table)
    ordered = sorted(levels)
    found = [lengths.at(level) for level in ordered]
    assert found == sorted(found)
    assert found[0] >= 1
    many = lengths.at_many(np.array(ordered))
    assert all(abs(one - other) <= 1 for one, other in zip(found, many.tolist(), strict=True))


@settings(max_examples=20, deadline=None)
@given(first=tables(), second=tables(), correlation=st.floats(-0.95, 0.95), seed=st.integers(0, 99))
def test_a_copula_changes_no_marginal(
    first: QuantileTable, second: QuantileTable, correlation: float, seed: int
) -> None:
    """Prompts and outputs are each distributed as their table says."""
    pair = CopulaPair(
        prompt=QuantileLength(table=first),
        output=QuantileLength(table=second),
        rank_correlation=correlation,
    )
    _has_marginals(pair, first, second, seed)


@settings(max_examples=20, deadline=None)
@given(first=tables(), second=tables(), share=st.floats(0, 0.25), seed=st.integers(0, 99))
def test_a_grid_changes_no_marginal(
    first: QuantileTable, second: QuantileTable, share: float, seed: int
) -> None:
    """And each of its cells gets its share."""
    rest = 0.25 - share
    pair = GridPair(
        prompt=QuantileLength(table=first),
        output=QuantileLength(table=second),
        edges=(0.0, 0.25, 1.0),
        shares=((share, rest), (rest, 0.75 - rest)),
    )
    _has_marginals(pair, first, second, seed)
    plain = QuantileLength(table=QuantileTable(quantiles=(0.0, 1.0), values=(1.0, 1e6)))
    shown = GridPair(prompt=plain, output=plain, edges=pair.edges, shares=pair.shares)
    rng = random.Random(seed)
    one_by_one = np.array([shown.draw(rng) for _ in range(COUNT)])
    for drawn in (one_by_one, np.column_stack(shown.draw_many(np.random.default_rng(seed), COUNT))):
        assert abs((drawn <= 250_000).all(axis=1).mean() - share) < 0.02


def _has_marginals(
    pair: LengthPair, first: QuantileTable, second: QuantileTable, seed: int
) -> None:
    levels = (np.arange(COUNT) + 0.5) / COUNT
    drawn = pair.draw_many(np.random.default_rng(seed), COUNT)
    for table, tokens in zip((first, second), drawn, strict=True):
        expected = np.sort(QuantileLength(table=table).at_many(levels))
        at = np.unique(np.concatenate((expected, tokens)))
        ours = np.searchsorted(np.sort(tokens), at, side="right") / COUNT
        theirs = np.searchsorted(expected, at, side="right") / COUNT
        assert np.abs(ours - theirs).max() <= DISTANCE_MAX


@settings(max_examples=20, deadline=None)
@given(correlation=st.floats(-0.95, 0.95), seed=st.integers(0, 99))
def test_the_rank_correlation_is_the_one_asked_for(correlation: float, seed: int) -> None:
    """Where lengths are spread out enough to have few ties."""
    wide = QuantileLength(table=QuantileTable(quantiles=(0, 0.9, 1), values=(1, 3e3, 3e5)))
    pair = CopulaPair(prompt=wide, output=wide, rank_correlation=correlation)
    prompts, outputs = pair.draw_many(np.random.default_rng(seed), COUNT)
    found = np.corrcoef(_ranks(prompts), _ranks(outputs))[0, 1]
    assert abs(found - correlation) < 0.04
    rng = random.Random(seed)
    few = np.array([pair.draw(rng) for _ in range(2000)])
    found = np.corrcoef(_ranks(few[:, 0]), _ranks(few[:, 1]))[0, 1]
    assert abs(found - correlation) < 0.12


@settings(max_examples=40, deadline=None)
@given(
    first=tables(),
    second=tables(),
    scale=st.floats(0.001, 10),
    caps=st.tuples(*(st.none() | st.integers(1, 3000),) * 2),
    seed=st.integers(0, 99),
)
def test_caps_hold_and_the_same_seed_gives_the_same(
    first: QuantileTable,
    second: QuantileTable,
    scale: float,
    caps: tuple[int | None, int | None],
    seed: int,
) -> None:
    """One by one and many at once, for every pair."""
    inner: LengthPair = IndependentPair(
        prompt=QuantileLength(table=first), output=QuantileLength(table=second)
    )
    pair = ScaledPair(pair=inner, scale=scale, prompt_tokens_max=caps[0], output_tokens_max=caps[1])
    ways = []
    for _ in range(2):
        rng = random.Random(seed)
        many = np.column_stack(pair.draw_many(np.random.default_rng(seed), 30))
        ways.append([*map(tuple, many.tolist()), *(pair.draw(rng) for _ in range(30))])
    assert ways[0] == ways[1]
    for lengths in ways[0]:
        for tokens, cap in zip(lengths, caps, strict=True):
            assert 1 <= tokens <= (cap or 1 << 30)
