"""Where one run keeps its processes' settings and logs."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from readahead.runtime.clock import wall_ns

RUNS_KEPT_MAX: Final = 5
"""Enough to compare with yesterday's; the oldest go first."""
TAIL_BYTES_MAX: Final = 64 << 10


def create(cache: Path) -> Path:
    """A new folder for this run; the oldest ones beyond the limit are removed."""
    runs = cache / "run"
    started = datetime.fromtimestamp(wall_ns() / 1e9, tz=UTC)
    folder = runs / f"{started:%Y%m%d-%H%M%S}-{os.getpid()}"
    folder.mkdir(parents=True)
    prune(runs, keep=RUNS_KEPT_MAX)
    return folder


def prune(runs: Path, *, keep: int) -> None:
    """Removes the oldest runs beyond `keep`, never one whose supervisor is alive."""
    folders = sorted(entry for entry in runs.iterdir() if entry.is_dir())
    for folder in folders[:-keep]:
        if not _is_running(folder):
            shutil.rmtree(folder, ignore_errors=True)


def tail(log: Path, *, lines_max: int) -> list[str]:
    """The last lines of a log; none if there is no log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES_MAX))
            text = file.read().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    return text.rstrip().splitlines()[-lines_max:]


def _is_running(folder: Path) -> bool:
    _, _, pid = folder.name.rpartition("-")
    return pid.isdecimal() and Path("/proc", pid).is_dir()
