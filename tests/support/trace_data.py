"""Public traces, which are not part of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def data_file(root: Path, name: str) -> Path:
    """A file of the data folder; skips the test where it is not there."""
    given = os.environ.get("READAHEAD_DATA")
    path = (Path(given) if given else root.parent / "shared" / "data") / name
    if not path.is_file():
        pytest.skip(f"needs {name} of the data folder; READAHEAD_DATA says where it is")
    return path
