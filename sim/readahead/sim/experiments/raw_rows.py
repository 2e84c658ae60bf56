"""Raw rows on disk: packed JSON lines, the first of which says where they come from."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from readahead.sim.experiments.experiment import Row, Scope, Value

FILE = "rows.jsonl.gz"
KIND = "readahead-reproduce"
DIGITS = 9


class RowsError(ValueError):
    """The file does not hold an experiment's rows; the message names file and line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What was run."""

    experiment: str
    scope: Scope
    command: str
    commit: str
    """Of the code, "-dirty" where the tree had changes; "unknown" outside a checkout."""
    seeds: int


def rounded(row: Row) -> Row:
    """The row as the file keeps it."""
    return {name: _rounded(value) for name, value in row.items()}


def _rounded(value: Value) -> Value:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def write_rows(folder: Path, origin: Origin, rows: Sequence[Row]) -> None:
    """Writes the file anew; equal rows make equal bytes.

    Raises:
        OSError: the disk does not take it.
    """
    head = {"kind": KIND, "simulated": True, "format_version": 1, **asdict(origin)}
    lines = [head, *(rounded(row) for row in rows)]
    text = "".join(
        json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines
    )
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as file:
        file.write(text.encode())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(packed.getvalue())


def read_rows(folder: Path) -> tuple[Origin, list[Row]]:
    """What `write_rows` wrote.

    Raises:
        RowsError: it is not that.
        OSError: it cannot be read.
    """
    path = folder / FILE
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
    except (ValueError, EOFError, gzip.BadGzipFile) as error:
        raise RowsError(f"{path}: expected packed JSON lines: {error}") from error
    if not lines or not isinstance(lines[0], dict) or lines[0].get("kind") != KIND:
        raise RowsError(f"{path}:1: expected an object with kind {KIND!r}")
    for place, line in enumerate(lines[1:], start=2):
        if not isinstance(line, dict):
            raise RowsError(f"{path}:{place}: expected an object, got {line!r}")
    try:
        origin = Origin(
            experiment=str(lines[0]["experiment"]),
            scope=Scope(lines[0]["scope"]),
            command=str(lines[0]["command"]),
            commit=str(lines[0]["commit"]),
            seeds=int(lines[0]["seeds"]),
        )
    except (KeyError, ValueError) as error:
        raise RowsError(f"{path}:1: {error}") from error
    return origin, lines[1:]
