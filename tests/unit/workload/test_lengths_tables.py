"""Lengths: as written, as tables, as pairs."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from readahead.workload.lengths import (
    FixedLength,
    LognormalLength,
    QuantileLength,
    QuantileTable,
    parse_lengths,
)
from readahead.workload.lengths_joint import CopulaPair, GridPair, IndependentPair, ScaledPair


def test_both_forms() -> None:
    """A number, or a lognormal with its parameters in any order."""
    assert parse_lengths("128") == FixedLength(tokens=128)
    assert parse_lengths("lognormal:sigma=0.8,median=200,max=2048") == LognormalLength(
        median_tokens=200, sigma=0.8, tokens_max=2048
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no length"),
        ("0", "within 1"),
        ("-3", "within 1"),
        ("99999999", "within 1"),
        ("many", "no length"),
        ("normal:median=3", "no distribution is called 'normal'"),
        ("lognormal:", "not name=value"),
        ("lognormal:median=3", "needs sigma="),
        ("lognormal:median=3,sigma=1,mode=2", "has no 'mode'"),
        ("lognormal:median=0,sigma=1", "median"),
        ("lognormal:median=nan,sigma=1", "median"),
        ("lognormal:median=9,sigma=-1", "sigma"),
        ("lognormal:median=9,sigma=1,max=3", "max"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, complaint: str) -> None:
    """The message says what was wrong."""
    with pytest.raises(ValueError, match=complaint):
        parse_lengths(text)


@pytest.mark.parametrize(
    ("quantiles", "values", "complaint"),
    [
        ((0.0, 1.0), (1.0,), "as many values as quantiles"),
        ((0.0,), (1.0,), "2 or more"),
        ((0.1, 1.0), (1.0, 2.0), "from 0 to 1"),
        ((0.0, 0.9), (1.0, 2.0), "from 0 to 1"),
        ((0.0, 0.5, 0.5, 1.0), (1.0, 2.0, 3.0, 4.0), "quantile 2 must be above 0.5"),
        ((0.0, 0.5, 1.0), (1.0, 3.0, 2.0), "value 2 must be finite and >= 3"),
        ((0.0, 1.0), (1.0, math.inf), "value 1 must be finite"),
        ((0.0, 1.0), (1.0, math.nan), "value 1 must be finite"),
    ],
)
def test_what_is_no_table_is_refused(
    quantiles: tuple[float, ...], values: tuple[float, ...], complaint: str
) -> None:
    """The message names the point."""
    with pytest.raises(ValueError, match=complaint):
        QuantileTable(quantiles=quantiles, values=values)


@pytest.mark.parametrize("values", [(-1.0, 5.0), (0.0, 0.5), (1.0, 1e9)])
def test_lengths_are_at_least_one_token(values: tuple[float, float]) -> None:
    """And fit a context window."""
    with pytest.raises(ValueError, match="lengths must be >= 0 with a maximum"):
        QuantileLength(table=QuantileTable(quantiles=(0.0, 1.0), values=values))


def test_a_table_is_linear_between_its_points() -> None:
    """The same for one level and for many."""
    table = QuantileTable(quantiles=(0.0, 0.5, 1.0), values=(1.0, 11.0, 111.0))
    levels = [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [table.at(level) for level in levels] == [1.0, 6.0, 11.0, 61.0, 111.0]
    assert table.at_many(np.array(levels)).tolist() == [1.0, 6.0, 11.0, 61.0, 111.0]


def test_lognormal_has_its_median_and_spread() -> None:
    """One by one and many at once; the cap cuts, and makes no heap."""
    lengths = LognormalLength(median_tokens=200, sigma=0.8, tokens_max=2000)
    rng = random.Random(4)
    for drawn in (
        np.array([lengths.draw(rng) for _ in range(20_000)]),
        lengths.draw_many(np.random.default_rng(4), 20_000),
    ):
        assert np.median(drawn) == pytest.approx(200, rel=0.03)
        assert np.log(drawn).std() == pytest.approx(0.8, rel=0.05)
        assert drawn.max() <= 2000
        assert (drawn == 2000).sum() < 10


def _table(low: float, high: float) -> QuantileLength:
    return QuantileLength(table=QuantileTable(quantiles=(0.0, 1.0), values=(low, high)))


def test_a_pair_above_a_cap_is_drawn_again() -> None:
    """The rest keeps its shape; caps that nothing meets cut."""
    pair = IndependentPair(prompt=_table(1, 1000), output=FixedLength(tokens=50))
    capped = ScaledPair(pair=pair, scale=0.5, prompt_tokens_max=100)
    rng = random.Random(1)
    drawn = [capped.draw(rng) for _ in range(3000)]
    assert {output for _, output in drawn} == {25}
    assert max(prompt for prompt, _ in drawn) == 100
    assert sum(prompt == 100 for prompt, _ in drawn) < 60
    many, _ = capped.draw_many(np.random.default_rng(1), 3000)
    assert many.max() == 100
    assert (many == 100).sum() < 60
    impossible = ScaledPair(pair=pair, output_tokens_max=3)
    assert impossible.draw(rng)[1] == 3
    assert impossible.draw_many(np.random.default_rng(1), 5)[1].tolist() == [3] * 5


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_is_positive(scale: float) -> None:
    """And finite."""
    pair = IndependentPair(prompt=_table(1, 9), output=_table(1, 9))
    with pytest.raises(ValueError, match="scale must be finite and > 0"):
        ScaledPair(pair=pair, scale=scale)


@pytest.mark.parametrize("correlation", [-1.0, 1.0, 2.0, math.nan])
def test_a_correlation_is_within_one(correlation: float) -> None:
    """Perfect correlation is no copula with a density."""
    with pytest.raises(ValueError, match=r"in -1\.\.1"):
        CopulaPair(prompt=_table(1, 9), output=_table(1, 9), rank_correlation=correlation)


@pytest.mark.parametrize(
    ("edges", "shares", "complaint"),
    [
        ((0.0,), (), "edges must ascend from 0 to 1"),
        ((0.0, 0.5), ((1.0,),), "edges must ascend from 0 to 1"),
        ((0.0, 1.0, 0.5, 1.0), ((1.0,),), "edges must ascend"),
        ((0.0, 1.0), ((0.5, 0.5),), "must be 1 times 1 numbers"),
        ((0.0, 0.5, 1.0), ((0.6, -0.1), (-0.1, 0.6)), "numbers >= 0"),
        ((0.0, 0.5, 1.0), ((0.3, 0.3), (0.2, 0.2)), "of the prompt's cells must sum"),
        ((0.0, 0.5, 1.0), ((0.3, 0.2), (0.3, 0.2)), "of the output's cells must sum"),
    ],
)
def test_what_is_no_grid_is_refused(
    edges: tuple[float, ...], shares: tuple[tuple[float, ...], ...], complaint: str
) -> None:
    """Its sums must leave the tables as they are."""
    with pytest.raises(ValueError, match=complaint):
        GridPair(prompt=_table(1, 9), output=_table(1, 9), edges=edges, shares=shares)
