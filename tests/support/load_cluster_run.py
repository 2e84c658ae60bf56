"""`readahead load` as a user runs it, and what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUN_S_MAX = 400.0
EXIT_MEASURED, EXIT_INVALID = 0, 3
"""A busy machine may send late, which makes a run invalid and says so; all else must hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A run that is over."""

    status: int
    report: str
    errors: str
    records: list[dict[str, Any]]
    meta: dict[str, Any]


def readahead(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command with these arguments, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "readahead.cli.main", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_S_MAX,
    )


def run_load(target: str, jsonl: Path, *arguments: str) -> Ran:
    """A run that measured; fails the test where it did not, but for sends that were late."""
    done = readahead(
        "load", "--target", target, "--jsonl", str(jsonl), *arguments, cwd=jsonl.parent
    )
    assert done.returncode in {EXIT_MEASURED, EXIT_INVALID}, done.stdout + done.stderr
    meta = read_meta(jsonl)
    assert meta["is_complete"]
    assert meta["is_valid"] == (done.returncode == EXIT_MEASURED)
    for reason in meta["results"]["invalid_because"]:
        assert reason.startswith("sends were late"), reason
    assert meta["records_lost"] == 0
    return Ran(
        status=done.returncode,
        report=done.stdout,
        errors=done.stderr,
        records=read_records(jsonl),
        meta=meta,
    )


def read_records(jsonl: Path) -> list[dict[str, Any]]:
    """One per request, in the order in which they ended."""
    return [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines()]


def read_meta(jsonl: Path) -> dict[str, Any]:
    """The description beside the records."""
    meta: dict[str, Any] = json.loads(jsonl.with_name(f"{jsonl.name}.meta.json").read_text())
    return meta
