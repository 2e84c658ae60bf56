"""The rows of the migration experiment, rule against rule in each situation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Row
from readahead.sim.experiments.intervals import (
    Mean,
    distinct,
    mean,
    number,
    numbers,
    paired,
    where,
)
from readahead.sim.experiments.migration_cells import LOADS, SITUATIONS, TUNING_SEEDS

SAVED_LEAST = 0.3
"""Share of moves to be saved."""
WORSE_MOST = 0.01
"""Smooth goodput that may be lost and still is equal, as a share."""
IDLE_S_MOST, IDLE_MOST = 0.05, 0.05
"""p99 idle that may be added and still is equal: seconds, or as a share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One situation."""

    situation: str
    rows: Sequence[Row]
    """Reported seeds."""
    tuning: Sequence[Row]
    load: str
    """The load rule with the best knobs on the tuning seeds."""

    @property
    def words(self) -> str:
        """The situation's."""
        return SITUATIONS[self.situation].words

    def of(self, rule: str) -> list[Row]:
        """Rows of a rule."""
        return where(self.rows, rule=rule)

    def mean(self, rule: str, name: str) -> Mean:
        """A number of a rule."""
        return mean(numbers(self.of(rule), name))

    def less(self, rule: str, other: str, name: str) -> Mean:
        """rule - other, seed by seed."""
        return paired(self.of(other), self.of(rule), lambda row: number(row, name))

    def saved(self, rule: str, other: str) -> float | None:
        """Share of the other's moves that this rule saves. None: there were none."""
        moves = self.mean(other, "moves").value
        return 1 - self.mean(rule, "moves").value / moves if moves else None

    def is_as_good(self, rule: str, other: str, name: str) -> bool:
        """Smooth goodput is not lower, in the mean, or lower by next to nothing."""
        least = -WORSE_MOST * abs(self.mean(other, name).value)
        return self.less(rule, other, name).value >= least

    def is_as_quick(self, rule: str, other: str) -> bool:
        """p99 idle is not higher, alike."""
        most = max(IDLE_S_MOST, IDLE_MOST * self.mean(other, "idle_p99_s").value)
        return self.less(rule, other, "idle_p99_s").value <= most

    def is_no_worse(self, rule: str, other: str) -> bool:
        """In smooth goodput under F1 and F2, and in p99 idle."""
        forms = ("f1_literal", "f1_censored", "f2_literal", "f2_censored")
        is_good = all(self.is_as_good(rule, other, name) for name in forms)
        return is_good and self.is_as_quick(rule, other)


def compared(rows: Sequence[Row]) -> list[Compared]:
    """All situations, in the order of the rows."""
    found = []
    for name in distinct(rows, "situation"):
        every = where(rows, situation=name)
        tuning = [row for row in every if row["seed"] in TUNING_SEEDS]
        found.append(
            Compared(
                situation=str(name),
                rows=[row for row in every if row["seed"] not in TUNING_SEEDS],
                tuning=tuning,
                load=_best(tuning),
            )
        )
    return found


def _best(tuning: Sequence[Row]) -> str:
    """The load rule of greatest smooth goodput; of equals the one with fewest moves."""

    def rank(rule: str) -> tuple[float, float]:
        rows = where(tuning, rule=rule)
        moves = mean(numbers(rows, "moves")).value
        return mean(numbers(rows, "f1_literal")).value, -moves

    return max(LOADS, key=rank)
