"""The files of the repository, as a clone has them."""

from __future__ import annotations

import subprocess
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GENERATED = ROOT / "proto" / "gen"
PACKAGE_ROOTS = (
    "core",
    "runtime",
    "router",
    "services",
    "ruler",
    "workload",
    "loadgen",
    "sim",
    "client",
    "cli",
    "proto/gen",
)

_MADE = {".git", ".venv", "__pycache__", "build", "dist", "node_modules", "run"}


@lru_cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # an unpacked archive
        paths = [
            path
            for path in ROOT.rglob("*")
            if not any(p in _MADE or p.endswith("_cache") for p in path.relative_to(ROOT).parts)
        ]
    return tuple(sorted(path for path in paths if path.is_file()))


def sources() -> list[Path]:
    """Our Python files; generated ones are left out."""
    return [p for p in files() if p.suffix == ".py" and not p.is_relative_to(GENERATED)]


def markdown() -> list[Path]:
    """All Markdown files."""
    return [path for path in files() if path.suffix == ".md"]


def shown(path: Path) -> str:
    """A path as a person names it."""
    return str(path.relative_to(ROOT))
