"""The property tests have teeth: each planted bug makes them fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "core"
MUTANTS = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]


LAWS = [str(HERE / name) for name in ("test_router_moves.py", "test_router_state.py")]


def run_laws(core: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *LAWS],
        env={**os.environ, "PYTHONPATH": str(core), "READAHEAD_EXAMPLES": "800"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=[each["law"] for each in MUTANTS])
def test_planted_bug_is_caught(mutant: dict[str, str], tmp_path: Path) -> None:
    """A core with one bug in it breaks at least one law."""
    core = tmp_path / "core"
    shutil.copytree(CORE, core, ignore=shutil.ignore_patterns("__pycache__"))
    file = core / "readahead" / "core" / mutant["file"]
    source = file.read_text()
    assert mutant["old"] in source, "the list of mutants has fallen behind the code"
    file.write_text(source.replace(mutant["old"], mutant["new"]))
    assert run_laws(core).returncode == 1, mutant["law"]


@pytest.mark.slow
def test_sound_core_passes(tmp_path: Path) -> None:
    """The same run without a bug is green, so that a red one means something."""
    core = tmp_path / "core"
    shutil.copytree(CORE, core, ignore=shutil.ignore_patterns("__pycache__"))
    result = run_laws(core)
    assert result.returncode == 0, result.stdout
