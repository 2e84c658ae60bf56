"""Two tests at once, on two processors, but those that measure time alone.

With pytest-xdist each process runs whole files, one after the other, with fixtures of its own,
the cluster too. Tests marked `quiet` wait until no other test runs, and none begins meanwhile:
the others wait at the gate behind them, so that a quiet one is never starved.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

KINDS = ("e2e", "integration", "helm", "property", "repo", "unit")
"""Folders under tests/; those with the longest files first, so that none is left for the end."""

# Any files do to hold locks on; these need not be cleaned up.
GATE = Path(__file__)
FLOOR = Path(__file__).parents[1] / "conftest.py"


def place_of(item: pytest.Item) -> int:
    """Of the test's folder, in the order in which files are begun."""
    kind = item.path.relative_to(FLOOR.parent).parts[0]
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


@contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """To be held for the test's whole protocol, fixtures included. Alone, nobody waits."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    is_quiet = item.get_closest_marker("quiet") is not None
    with FLOOR.open() as floor:
        with GATE.open() as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            fcntl.flock(floor, fcntl.LOCK_EX if is_quiet else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # Closing would not do: a process that the test forked may hold the file open.
            fcntl.flock(floor, fcntl.LOCK_UN)
