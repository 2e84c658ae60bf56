"""How long prompts and answers are, tokens."""

from __future__ import annotations

import bisect
import math
import random
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

TOKENS_MAX = 1 << 20
"""Above every context window in use; a longer draw would be refused by all."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Lengths(Protocol):
    """A distribution of lengths. Pure: all randomness is the caller's."""

    def draw(self, rng: random.Random) -> int:
        """A length, tokens, at least 1."""
        ...

    def draw_many(self, rng: np.random.Generator, count: int) -> IntArray:
        """That many of the same distribution; other numbers than `draw` gives."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLength:
    """Always the same."""

    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= TOKENS_MAX:
            raise ValueError(f"a length must be within 1..{TOKENS_MAX} tokens, got {self.tokens}")

    def draw(self, rng: random.Random) -> int:
        """The length."""
        return self.tokens

    def draw_many(self, rng: np.random.Generator, count: int) -> IntArray:
        """The length, `count` times."""
        return np.full(count, self.tokens, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLength:
    """Lognormal, the shape that prompts and answers of people have; cut at `tokens_max`."""

    median_tokens: float
    sigma: float
    """Standard deviation of the logarithm. 1: one draw in six is above 2.7 medians."""
    tokens_max: int = TOKENS_MAX
    """A longer draw is drawn again, so that the cap makes no heap of equal lengths."""

    def __post_init__(self) -> None:
        if not 1 <= self.median_tokens <= self.tokens_max <= TOKENS_MAX:
            raise ValueError(f"1 <= median <= max <= {TOKENS_MAX} must hold")
        if not 0 <= self.sigma <= 4:
            raise ValueError(f"sigma must be within 0..4, got {self.sigma}")

    def draw(self, rng: random.Random) -> int:
        """At least 1. Half of all draws are at most the median, so drawing again ends soon."""
        while True:
            tokens = max(1, round(rng.lognormvariate(math.log(self.median_tokens), self.sigma)))
            if tokens <= max(self.tokens_max, 1):
                return tokens

    def draw_many(self, rng: np.random.Generator, count: int) -> IntArray:
        """The same, many."""
        drawn = np.zeros(count, dtype=np.int64)
        missing = np.arange(count)
        while missing.size:
            tokens = rng.lognormal(math.log(self.median_tokens), self.sigma, missing.size)
            whole = np.maximum(np.rint(np.minimum(tokens, TOKENS_MAX + 1)), 1).astype(np.int64)
            drawn[missing] = whole
            missing = missing[whole > self.tokens_max]
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileTable:
    """A distribution as its quantiles, linear between them. Of any quantity."""

    quantiles: tuple[float, ...]
    """Ascending, from 0 to 1."""
    values: tuple[float, ...]
    """Not descending."""
    _levels: FloatArray = field(init=False, repr=False, compare=False)
    _heights: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        levels, heights = self.quantiles, self.values
        if len(levels) != len(heights) or len(levels) < 2:
            raise ValueError(
                f"a table needs as many values as quantiles, 2 or more; got {len(heights)} values"
                f" and {len(levels)} quantiles"
            )
        if levels[0] != 0 or levels[-1] != 1:
            raise ValueError(f"quantiles must go from 0 to 1, go from {levels[0]} to {levels[-1]}")
        for index in range(1, len(levels)):
            if not levels[index - 1] < levels[index]:
                raise ValueError(f"quantile {index} must be above {levels[index - 1]}")
            if not heights[index - 1] <= heights[index] < math.inf:
                raise ValueError(f"value {index} must be finite and >= {heights[index - 1]}")
        object.__setattr__(self, "_levels", np.asarray(levels, dtype=np.float64))
        object.__setattr__(self, "_heights", np.asarray(heights, dtype=np.float64))

    def at(self, level: float) -> float:
        """The quantile at a level in 0..1."""
        levels, heights = self.quantiles, self.values
        upper = min(max(bisect.bisect_right(levels, level), 1), len(levels) - 1)
        below, above = levels[upper - 1], levels[upper]
        share = min(max((level - below) / (above - below), 0.0), 1.0)
        return heights[upper - 1] + share * (heights[upper] - heights[upper - 1])

    def at_many(self, levels: FloatArray) -> FloatArray:
        """The quantiles at many levels."""
        return np.interp(levels, self._levels, self._heights)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileLength:
    """Lengths by a table, such as one made from a trace."""

    table: QuantileTable

    def __post_init__(self) -> None:
        low, high = self.table.values[0], self.table.values[-1]
        if not (low >= 0 and 1 <= high <= TOKENS_MAX):
            raise ValueError(
                f"lengths must be >= 0 with a maximum in 1..{TOKENS_MAX} tokens, got {low}..{high}"
            )

    def at(self, level: float) -> int:
        """The length at a level in 0..1, a whole number of tokens, at least 1."""
        return max(1, round(self.table.at(level)))

    def at_many(self, levels: FloatArray) -> IntArray:
        """The lengths at many levels."""
        tokens: IntArray = np.maximum(np.rint(self.table.at_many(levels)), 1).astype(np.int64)
        return tokens

    def draw(self, rng: random.Random) -> int:
        """One."""
        return self.at(rng.random())

    def draw_many(self, rng: np.random.Generator, count: int) -> IntArray:
        """Many."""
        return self.at_many(rng.random(count))


def parse_lengths(text: str) -> Lengths:
    """Reads "128" or "lognormal:median=200,sigma=0.8[,max=2048]".

    Raises:
        ValueError: it is neither; the message says what was expected.
    """
    kind, colon, rest = text.partition(":")
    try:
        if not colon:
            return FixedLength(tokens=int(kind))
        if kind != "lognormal":
            raise ValueError(f"no distribution is called {kind!r}")
        fields = dict(_field(part) for part in rest.split(","))
        unknown = fields.keys() - {"median", "sigma", "max"}
        if unknown:
            raise ValueError(f"lognormal has no {sorted(unknown)[0]!r}")
        return LognormalLength(
            median_tokens=float(fields["median"]),
            sigma=float(fields["sigma"]),
            tokens_max=int(fields.get("max", TOKENS_MAX)),
        )
    except KeyError as error:
        raise ValueError(f"{text!r}: lognormal needs {error.args[0]}=") from error
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no length: {error} "
            "(write 128, or lognormal:median=200,sigma=0.8,max=2048)"
        ) from error


def _field(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"{part!r} is not name=value")
    return name.strip(), value.strip()
