"""Points of a capacity search on disk, so that one that was broken off goes on where it was.

They belong to the code that made them: other code keeps its own.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import readahead.core.latency as latency
import readahead.workload as workload
from readahead.core.planning.policies.registry import POLICIES
from readahead.sim.experiments.experiment import Row

FOLDER = Path("build") / "experiments" / "kept" / "capacity"
"""Relative to where it is run. It may be deleted at any time."""

ROOTS = ("capacity_cells", "capacity_promises", "capacity_sessions", "capacity_world")
"""The modules of experiments that a point follows from."""
KEY = ("part", "arm", "told", "step", "seed", "rate_req_s", "start_s", "last_s", "end_s")
"""What tells the points of one cell apart."""
OURS = "readahead."


@cache
def fingerprint(policies: frozenset[str], arms: str) -> str:
    """Of all that the points of a cell follow from: its arms, and the code of these policies and
    of the world, but not the code of other policies.
    """
    found = hashlib.sha256(arms.encode())
    for path in sorted({*modules(policies), *_data()}):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:12]


def _data() -> Iterator[Path]:
    """Fitted parameters: iteration times, lengths."""
    for package in (latency, workload):
        for folder in package.__path__:
            yield from Path(folder).rglob("*.json")


def modules(policies: frozenset[str]) -> set[Path]:
    """Our own modules that these policies' runs import, however indirectly."""
    waiting = [f"readahead.sim.experiments.{root}" for root in ROOTS]
    waiting += sorted(POLICIES[one].__module__ for one in policies)
    every = {one.__module__ for one in POLICIES.values()}
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        path = importlib.import_module(name).__file__
        if path is None:
            continue  # a namespace
        found[name] = Path(path)
        # The world names policies, but only policies are made of policies.
        skipped = () if name in every else every
        waiting += (each for each in _imported(Path(path)) if each not in skipped)
    return set(found.values())


def _imported(path: Path) -> Iterator[str]:
    """The modules of ours that a module names in an import, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module]
        yield from (name for name in names if name.startswith(OURS))


class Kept:
    """The points of one cell. Without a folder nothing is kept."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.jsonl"
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
