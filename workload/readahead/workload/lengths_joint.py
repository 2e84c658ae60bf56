"""Lengths of prompt and answer together: long prompts may have short answers."""

from __future__ import annotations

import bisect
import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import numpy as np

from readahead.workload.lengths import TOKENS_MAX, FloatArray, IntArray, Lengths, QuantileLength

ATTEMPTS_MAX = 64
"""Draws above a cap are drawn again so often, then cut: a cap far below the distribution must
not hang a plan."""


class LengthPair(Protocol):
    """A joint distribution of prompt and answer lengths. All randomness is the caller's."""

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """Prompt tokens and output tokens, both at least 1."""
        ...

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """That many of the same distribution; other numbers than `draw` gives."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IndependentPair:
    """Answer lengths that do not depend on the prompt's."""

    prompt: Lengths
    output: Lengths

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """One of each."""
        return self.prompt.draw(rng), self.output.draw(rng)

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Many of each."""
        return self.prompt.draw_many(rng, count), self.output.draw_many(rng, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopulaPair:
    """Two tables tied by a Gaussian copula: exact marginals, and a given rank correlation."""

    prompt: QuantileLength
    output: QuantileLength
    rank_correlation: float
    """Spearman's, of continuous variables; -1 < it < 1."""

    def __post_init__(self) -> None:
        if not -1 < self.rank_correlation < 1:
            raise ValueError(f"rank_correlation must be in -1..1, is {self.rank_correlation}")

    @property
    def normal_correlation(self) -> float:
        """Pearson's of the normals beneath. Spearman's of a Gaussian copula is 6/pi asin(r/2)."""
        return 2 * math.sin(math.pi * self.rank_correlation / 6)

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """One pair."""
        if not self.rank_correlation:
            return self.prompt.draw(rng), self.output.draw(rng)
        correlation = self.normal_correlation
        first = rng.normalvariate(0.0, 1.0)
        other = rng.normalvariate(0.0, 1.0)
        second = correlation * first + math.sqrt(1 - correlation**2) * other
        return self.prompt.at(_level(first)), self.output.at(_level(second))

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Many pairs."""
        if not self.rank_correlation:
            return self.prompt.draw_many(rng, count), self.output.draw_many(rng, count)
        correlation = self.normal_correlation
        first = rng.standard_normal(count)
        second = correlation * first + math.sqrt(1 - correlation**2) * rng.standard_normal(count)
        return self.prompt.at_many(_levels(first)), self.output.at_many(_levels(second))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridPair:
    """Two tables tied by a grid of shares: exact marginals, and any dependence that the grid shows.

    For what a Gaussian copula cannot say, such as long answers to short prompts alone.
    """

    prompt: QuantileLength
    output: QuantileLength
    edges: tuple[float, ...]
    """Of the cells, as levels of either length: ascending, from 0 to 1."""
    shares: tuple[tuple[float, ...], ...]
    """Of all draws, by cell of the prompt's level and then of the output's."""
    _cumulative: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        edges, shares = np.array(self.edges), np.array(self.shares, dtype=np.float64)
        count = len(edges) - 1
        if count < 1 or edges[0] != 0 or edges[-1] != 1 or not (np.diff(edges) > 0).all():
            raise ValueError(f"edges must ascend from 0 to 1, are {self.edges}")
        if shares.shape != (count, count) or not (shares >= 0).all():
            raise ValueError(f"shares must be {count} times {count} numbers >= 0")
        for axis, name in ((1, "prompt"), (0, "output")):
            if not np.allclose(shares.sum(axis=axis), np.diff(edges), rtol=0, atol=1e-6):
                raise ValueError(f"shares of the {name}'s cells must sum to the cells' widths")
        object.__setattr__(self, "_cumulative", tuple(np.cumsum(shares.ravel()).tolist()))

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """One pair."""
        at = rng.random() * self._cumulative[-1]
        cells = len(self.edges) - 1
        cell = min(bisect.bisect_right(self._cumulative, at), cells * cells - 1)
        row, column = divmod(cell, cells)
        return self.prompt.at(self._within(row, rng)), self.output.at(self._within(column, rng))

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Many pairs."""
        edges, cells = np.array(self.edges), len(self.edges) - 1
        at = rng.random(count) * self._cumulative[-1]
        cell = np.minimum(np.searchsorted(self._cumulative, at, side="right"), cells * cells - 1)
        first, second = (
            edges[index] + rng.random(count) * np.diff(edges)[index]
            for index in np.divmod(cell, cells)
        )
        return self.prompt.at_many(first), self.output.at_many(second)

    def _within(self, cell: int, rng: random.Random) -> float:
        return self.edges[cell] + rng.random() * (self.edges[cell + 1] - self.edges[cell])


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPair:
    """Another pair, both lengths times `scale`, then within the caps.

    For machines too small for the real thing. A pair above a cap is drawn again, so that the cap
    makes no heap of equal lengths; after 64 times it is cut.
    """

    pair: LengthPair
    scale: float = 1.0
    prompt_tokens_max: int | None = None
    output_tokens_max: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale < math.inf:
            raise ValueError(f"scale must be finite and > 0, is {self.scale}")
        for name in ("prompt_tokens_max", "output_tokens_max"):
            cap = getattr(self, name)
            if cap is not None and cap < 1:
                raise ValueError(f"{name} must be at least 1, is {cap}")

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """One pair."""
        prompt = output = TOKENS_MAX
        for _ in range(ATTEMPTS_MAX):
            prompt, output = (self._scaled(tokens) for tokens in self.pair.draw(rng))
            if prompt <= self._prompt_cap and output <= self._output_cap:
                return prompt, output
        return int(min(prompt, self._prompt_cap)), int(min(output, self._output_cap))

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Many pairs."""
        prompts, outputs = np.ones(count, dtype=np.int64), np.ones(count, dtype=np.int64)
        missing = np.arange(count)
        for _ in range(ATTEMPTS_MAX):
            drawn = self.pair.draw_many(rng, missing.size)
            prompt, output = (
                np.maximum(np.rint(tokens * self.scale), 1).astype(np.int64) for tokens in drawn
            )
            prompts[missing] = np.minimum(prompt, self._prompt_cap)
            outputs[missing] = np.minimum(output, self._output_cap)
            missing = missing[(prompt > self._prompt_cap) | (output > self._output_cap)]
            if not missing.size:
                break
        return prompts, outputs

    def _scaled(self, tokens: int) -> int:
        return max(1, round(tokens * self.scale))

    @property
    def _prompt_cap(self) -> float:
        return math.inf if self.prompt_tokens_max is None else self.prompt_tokens_max

    @property
    def _output_cap(self) -> float:
        return math.inf if self.output_tokens_max is None else self.output_tokens_max


def _level(normal: float) -> float:
    """The share of a standard normal below this."""
    return 0.5 * math.erfc(-normal / math.sqrt(2))


@lru_cache(maxsize=1)
def _normal_table() -> tuple[FloatArray, FloatArray]:
    """numpy has no erf; between 8,193 points a straight line is off by less than 1e-7."""
    normals = np.linspace(-8.0, 8.0, 8193)
    return normals, np.array([_level(normal) for normal in normals.tolist()])


def _levels(normals: FloatArray) -> FloatArray:
    """The same, many."""
    return np.interp(normals, *_normal_table())
