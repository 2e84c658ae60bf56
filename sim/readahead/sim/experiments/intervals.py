"""Means over seeds with their 95 % intervals, by Student's t."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from readahead.sim.experiments.experiment import Row, Value

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean and half the width of its interval; nan with fewer than two values."""

    value: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """The interval's lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """The interval's upper end."""
        return self.value + self.half

    def text(self, digits: int = 3, *, scale: float = 1.0) -> str:
        """As a table has it: 12.3 ± 0.4, to so many significant digits of the mean."""
        if not self.count:
            return "-"
        value = self.value * scale
        size = max(abs(value), abs(self.half * scale) if math.isfinite(self.half) else 0.0)
        places = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
        places = min(places, 4)
        shown = f"{value:z,.{places}f}"
        if not math.isfinite(self.half):
            return shown
        return f"{shown} ± {self.half * scale:,.{places}f}"


def mean(values: Iterable[float]) -> Mean:
    """Of some values, one from each seed."""
    found = [float(value) for value in values]
    if not found:
        return Mean(value=math.nan, half=math.nan, count=0)
    middle = math.fsum(found) / len(found)
    if len(found) < 2:
        return Mean(value=middle, half=math.nan, count=1)
    variance = math.fsum((value - middle) ** 2 for value in found) / (len(found) - 1)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1))
    half = quantile * math.sqrt(variance / len(found))
    return Mean(value=middle, half=half, count=len(found))


def paired(first: Sequence[Row], second: Sequence[Row], of: Callable[[Row], float]) -> Mean:
    """The mean of second - first, seed by seed: both had the same arrivals."""
    before = {row["seed"]: of(row) for row in first}
    return mean(of(row) - before[row["seed"]] for row in second if row["seed"] in before)


def where(rows: Iterable[Row], **wanted: Value) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def distinct(rows: Iterable[Row], name: str) -> list[Value]:
    """The values that a column has, in the order in which they come."""
    return list(dict.fromkeys(row[name] for row in rows))


def numbers(rows: Iterable[Row], name: str) -> list[float]:
    """A column of numbers; rows without one are left out."""
    return [number(row, name) for row in rows if row.get(name) is not None]


def number(row: Row, name: str) -> float:
    """A number of a row.

    Raises:
        TypeError: it is none.
    """
    value = row[name]
    if isinstance(value, str) or value is None:
        raise TypeError(f"{name} must be a number, is {value!r}")
    return float(value)
