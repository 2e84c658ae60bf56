"""Points of a capacity search on disk, so that one that was broken off goes on where it was.

They belong to the code that made them: other code keeps its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import readahead.core.latency as latency
import readahead.core.placement as placement
import readahead.core.planning as planning
import readahead.sim as sim
import readahead.workload as workload
from readahead.sim.experiments.experiment import Row

FOLDER = Path("build") / "experiments" / "kept" / "capacity"
"""Relative to where it is run. It may be deleted at any time."""

MODULES = ("capacity_cells", "capacity_promises", "capacity_sessions", "capacity_world", "windows")
"""The modules of experiments that a point follows from."""
KEY = ("part", "arm", "told", "step", "seed", "rate_req_s", "start_s", "last_s", "end_s")
"""What tells the points of one cell apart."""


@cache
def fingerprint() -> str:
    """Of all code that a point follows from."""
    found = hashlib.sha256()
    for package in (latency, placement, planning, sim, workload):
        for folder in sorted(package.__path__):
            for path in sorted(Path(folder).rglob("*")):
                is_other = path.parent.name == "experiments" and path.stem not in MODULES
                if path.suffix in (".py", ".json") and not is_other:
                    found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


class Kept:
    """The points of one cell. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / fingerprint() / f"{name}.jsonl"
        self.rows: dict[tuple[object, ...], Row] = {}
        """All there are, in the order in which they were made."""
        if self._path is not None and self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            row = json.loads(line)
        except ValueError:
            return  # it was being written when the run was broken off
        self.rows[key(row)] = row

    def add(self, row: Row) -> None:
        """Keeps one more.

        Raises:
            OSError: the disk does not take it.
        """
        self.rows[key(row)] = row
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def key(row: Mapping[str, object], names: Sequence[str] = KEY) -> tuple[object, ...]:
    """What tells a point from others."""
    return tuple(row[name] for name in names)
