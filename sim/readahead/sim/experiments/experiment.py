"""What an experiment is: cells that run on their own, and a conclusion from their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

Value = float | int | str | bool | None
"""What a row holds. Floats are kept with nine digits."""

Row = dict[str, Value]
"""What came of one cell: its parameters, its seed, and numbers."""


class Scope(StrEnum):
    """How much is run."""

    FULL = "full"
    """What the committed tables come from: five seeds or more."""
    QUICK = "quick"
    """All experiments within minutes: fewer loads, seeds and seconds. Verdicts may differ."""
    TINY = "tiny"
    """Seconds, for tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One independent run. Its result follows from it alone."""

    parameters: Mapping[str, Value]
    seed: int

    def row(self, **found: Value) -> Row:
        """The row of this cell."""
        return {**self.parameters, "seed": self.seed, **found}

    def text(self, name: str) -> str:
        """A parameter that is a word."""
        value = self.parameters[name]
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a word, is {value!r}")
        return value

    def number(self, name: str) -> float:
        """A parameter that is a number."""
        value = self.parameters[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, is {value!r}")
        return value


class Verdict(StrEnum):
    """Whether a finding of a paper was found again."""

    REPRODUCED = "reproduced"
    PARTLY = "partly reproduced"
    NOT = "not reproduced"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One finding, the paper's words beside ours. Cells of a table: no line breaks."""

    finding: str
    """What was to be found, with the criterion."""
    paper: str
    """The paper's number or words, with the tag of their provenance: [P], [S], [D]."""
    ours: str
    """With 95 % intervals where it is a number."""
    verdict: Verdict
    why: str = ""
    """Said where it is not simply reproduced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the page."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture of the page."""

    file: str
    """Its name, without a folder."""
    caption: str
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What an experiment says."""

    claims: Sequence[Claim]
    tables: Sequence[Table]
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = field(default_factory=tuple)
    """Sentences: what to bear in mind, what was left out."""


class Experiment(Protocol):
    """A question, its runs and its answer. Its name is that of its folder below experiments/."""

    @property
    def name(self) -> str:
        """As in `readahead reproduce --only NAME`."""
        ...

    @property
    def title(self) -> str:
        """A line."""
        ...

    @property
    def asked(self) -> str:
        """The question, in a paragraph."""
        ...

    @property
    def set_up(self) -> Sequence[str]:
        """What was simulated, a sentence or two each."""
        ...

    @property
    def profiles(self) -> Sequence[str]:
        """Calibrations that it rests on; their quality is printed."""
        ...

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All runs, in the order of the rows. What needs absent data is left out."""
        ...

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run, its rows. Same cell, same rows, in any process."""
        ...

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """What the rows say. It knows nothing but them."""
        ...
