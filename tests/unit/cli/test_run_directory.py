"""Folders of runs: bounded in number, never one that is in use."""

from __future__ import annotations

import os
from pathlib import Path

from readahead.cli.up.run_directory import RUNS_KEPT_MAX, create, prune, tail


def test_only_the_last_runs_are_kept(tmp_path: Path) -> None:
    """The oldest go first, the new one stays."""
    for day in range(10, 20):
        (tmp_path / "run" / f"202001{day}-000000-x").mkdir(parents=True)
    folder = create(tmp_path)
    names = sorted(entry.name for entry in (tmp_path / "run").iterdir())
    assert len(names) == RUNS_KEPT_MAX
    assert names[-1] == folder.name
    assert "20200110-000000-x" not in names


def test_a_live_run_is_never_removed(tmp_path: Path) -> None:
    """Its name ends with the id of a process that lives."""
    live = tmp_path / f"20200101-000000-{os.getpid()}"
    live.mkdir()
    (tmp_path / "20200102-000000-x").mkdir()
    (tmp_path / "20200103-000000-x").mkdir()
    prune(tmp_path, keep=1)
    assert live.is_dir()
    assert not (tmp_path / "20200102-000000-x").exists()


def test_tail_of_a_log(tmp_path: Path) -> None:
    """The last lines, also of a large file, and none of a missing one."""
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    assert tail(log, lines_max=2) == ["line 99998", "line 99999"]
    assert tail(tmp_path / "missing.log", lines_max=2) == []
