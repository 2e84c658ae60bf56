"""Measured or composed iterations, as arrays to fit."""

from __future__ import annotations

import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, TextIO

import numpy as np
from numpy.typing import NDArray

from readahead.core.latency.iteration import IterationWork

KINDS: Final = ("prefill", "decode", "mixed")
FEATURES: Final = ("tokens", "requests", "past_tokens", "prefill_pairs", "draft_steps")
"""Columns of `Points.work`, named as in IterationWork."""

_COMPOSED_COLUMNS: Final = ("kind", "n_tok", "n_seq", "n_dec", "pf_pairs", "kv_tok", "t_ms")
_LOG_FIELDS: Final = (*FEATURES, "seconds")
LOOP_S_MAX: Final = 0.01
"""Longest time from an iteration's output to the next iteration that is an engine's own loop; what
is longer is a wait for work."""
_CELLS_PER_DOUBLING: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Iterations and how long they took."""

    work: NDArray[np.float64]
    """One row each, one column per feature."""
    seconds: NDArray[np.float64]
    kinds: tuple[str, ...]
    """prefill, decode or mixed, one each."""
    counts: NDArray[np.float64] | None = None
    """How many iterations each stands for; None: one each."""

    def __len__(self) -> int:
        return len(self.seconds)

    def chosen(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        """Those rows only."""
        indices = np.arange(len(self))[rows]
        kinds = tuple(self.kinds[index] for index in indices)
        return Points(
            work=self.work[indices],
            seconds=self.seconds[indices],
            kinds=kinds,
            counts=None if self.counts is None else self.counts[indices],
        )

    @classmethod
    def of(cls, rows: Iterable[tuple[str, IterationWork, float]]) -> Points:
        """From (kind, work, seconds)."""
        kinds: list[str] = []
        work: list[list[float]] = []
        seconds: list[float] = []
        for kind, one, took_s in rows:
            kinds.append(kind)
            work.append([float(getattr(one, feature)) for feature in FEATURES])
            seconds.append(took_s)
        return cls(
            work=np.array(work, dtype=np.float64).reshape(-1, len(FEATURES)),
            seconds=np.array(seconds, dtype=np.float64),
            kinds=tuple(kinds),
        )


def thinned(points: Points, most: int, *, seed: int) -> Points:
    """At most so many of the points, drawn by the seed. The rarer kinds stay whole if they can.

    Each kind gets an equal part; what a rare one leaves goes to the others.
    """
    if len(points) <= most:
        return points
    order = np.random.default_rng(seed).permutation(len(points))
    kinds = np.array(points.kinds)[order]
    names, counts = np.unique(kinds, return_counts=True)
    kept: list[NDArray[np.intp]] = []
    left = most
    for done, index in enumerate(np.argsort(counts)):
        drawn = order[kinds == names[index]][: left // (len(names) - done)]
        kept.append(drawn)
        left -= len(drawn)
    return points.chosen(np.sort(np.concatenate(kept)))


def kind_of(work: IterationWork) -> str:
    """What a batch of this work is called: prefill, decode, or mixed."""
    if work.prefill_pairs == 0:
        return "decode"
    return "mixed" if work.past_tokens else "prefill"


def read_composed(path: Path) -> Points:
    """Reads a table of iterations: CSV (or .csv.gz) of kind, n_tok, n_seq, n_dec, pf_pairs,
    kv_tok, t_ms.

    Raises:
        ValueError: a column is missing or a number is none; names file, line and field.
    """
    return Points.of(_composed_row(row, where) for where, row in rows_of(path, _COMPOSED_COLUMNS))


def read_iteration_log(path: Path) -> Points:
    """Reads a worker's iterations: JSON lines of tokens, requests, past_tokens, prefill_pairs,
    draft_steps (may be absent), seconds, and began_s (may be absent), in order of time.

    An iteration lasts until the next begins: the engine's loop and what it does with the output
    belong to it. Where that is more than LOOP_S_MAX later, or not known, the engine may have
    waited for work, and the iteration's own seconds count. Those without tokens are left out.

    Raises:
        ValueError: a line is not such an object; names file, line and field.
    """
    rows: list[tuple[str, IterationWork, float]] = []
    began: list[float | None] = []
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            fields = _object_of(line, where)
            fields.setdefault("draft_steps", 0)
            values = {name: number_of(fields, name, where) for name in _LOG_FIELDS}
            work = IterationWork(**{name: int(values[name]) for name in FEATURES})
            if work.tokens:
                rows.append((kind_of(work), work, values["seconds"]))
                has_time = "began_s" in fields
                began.append(number_of(fields, "began_s", where) if has_time else None)
    points = _nonempty(rows, path)
    for index, (one, following) in enumerate(pairwise(began)):
        if one is None or following is None:
            continue
        if 0 <= following - one - points.seconds[index] <= LOOP_S_MAX:
            points.seconds[index] = following - one
    return points


def averaged(points: Points) -> Points:
    """Means of iterations alike: of one kind, with sizes that differ by a quarter at the most.

    Where a busy machine stretches single iterations at random, a fit to relative errors would
    lean towards the short ones; means have no such lean.
    """
    steps = np.round(np.log2(points.work + 1) * _CELLS_PER_DOUBLING)
    cells: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for index, (kind, step) in enumerate(zip(points.kinds, steps, strict=True)):
        cells[kind, *step.tolist()].append(index)
    members = list(cells.values())
    counts = points.counts if points.counts is not None else np.ones(len(points))
    weights = [counts[rows] / counts[rows].sum() for rows in members]
    return Points(
        work=np.array(
            [weight @ points.work[rows] for rows, weight in zip(members, weights, strict=True)]
        ),
        seconds=np.array(
            [weight @ points.seconds[rows] for rows, weight in zip(members, weights, strict=True)]
        ),
        kinds=tuple(points.kinds[rows[0]] for rows in members),
        counts=np.array([counts[rows].sum() for rows in members]),
    )


def joined(parts: Sequence[Points]) -> Points:
    """All of them, one after the other."""
    return Points(
        work=np.concatenate([part.work for part in parts]),
        seconds=np.concatenate([part.seconds for part in parts]),
        kinds=tuple(kind for part in parts for kind in part.kinds),
    )


def _object_of(line: str, where: str) -> dict[str, object]:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error.msg}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: expected an object of {', '.join(_LOG_FIELDS)}")
    return fields


def rows_of(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A table's rows, each with its place as file:line.

    Raises:
        ValueError: one of the columns is missing.
    """
    with opened(path) as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path.name}:1: no column {', '.join(missing)}; expected {', '.join(columns)}"
            )
        for row in reader:
            yield f"{path.name}:{reader.line_num}", row


def number_of(fields: Mapping[str, object], name: str, where: str) -> float:
    """A field as a number >= 0.

    Raises:
        ValueError: it is none.
    """
    value = fields.get(name)
    try:
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            raise ValueError(value)
        number = float(value)
    except ValueError:
        raise ValueError(f"{where}: {name} must be a number >= 0, is {value!r}") from None
    if not 0 <= number < float("inf"):
        raise ValueError(f"{where}: {name} must be a number >= 0, is {value!r}")
    return number


def opened(path: Path) -> TextIO:
    """The text of a file, unpacked where its name ends in .gz."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _composed_row(row: Mapping[str, str], where: str) -> tuple[str, IterationWork, float]:
    kind = row["kind"]
    if kind not in KINDS:
        raise ValueError(f"{where}: kind must be one of {', '.join(KINDS)}, is {kind!r}")
    work = IterationWork(
        tokens=int(number_of(row, "n_tok", where)),
        requests=int(number_of(row, "n_seq", where)),
        past_tokens=int(number_of(row, "kv_tok", where)),
        prefill_pairs=int(number_of(row, "pf_pairs", where)),
    )
    return kind, work, number_of(row, "t_ms", where) / 1e3


def _nonempty(rows: list[tuple[str, IterationWork, float]], path: Path) -> Points:
    if not rows:
        raise ValueError(f"{path.name}: holds no iteration")
    return Points.of(rows)
