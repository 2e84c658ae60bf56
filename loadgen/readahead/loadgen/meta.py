"""What a reader of the records needs to know of the run: FILE.meta.json beside FILE."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from readahead.loadgen.statistics import Summary
from readahead.runtime.clock import wall_ns

FORMAT_VERSION = 1
GIT_S_MAX = 2.0


def meta_path(records: Path) -> Path:
    """Where the description of a file of records lies."""
    return records.with_name(records.name + ".meta.json")


def describe(settings: Mapping[str, object]) -> dict[str, object]:
    """A run that begins now."""
    return {
        "kind": "readahead-load",
        "format_version": FORMAT_VERSION,
        "started_at": datetime.fromtimestamp(wall_ns() / 1e9, UTC).isoformat(),
        "readahead_version": importlib.metadata.version("readahead"),
        "commit": source_commit(),
        "settings": dict(settings),
    }


def results(summary: Summary, *, records_lost: int) -> dict[str, object]:
    """What a description gains when the run is over."""
    fields = dataclasses.asdict(summary)
    # A Counter does not survive asdict: it counts its own pairs.
    fields["outcomes"] = {str(outcome): count for outcome, count in summary.outcomes.items()}
    fields["causes"] = {str(cause): count for cause, count in summary.causes.items()}
    return {
        "is_valid": not summary.invalid_because,
        "records_lost": records_lost,
        "results": fields,
    }


def write(path: Path, content: Mapping[str, object]) -> None:
    """Writes a description.

    Raises:
        OSError: the disk does not take it.
    """
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def source_commit() -> str | None:
    """The commit that this code is of; None outside of a checkout of its own."""
    here = Path(__file__).resolve()
    try:
        subprocess.run(
            ["git", "ls-files", "--error-unmatch", here.name],
            cwd=here.parent,
            capture_output=True,
            check=True,
            timeout=GIT_S_MAX,
        )
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=here.parent,
            capture_output=True,
            check=True,
            timeout=GIT_S_MAX,
            text=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip()
