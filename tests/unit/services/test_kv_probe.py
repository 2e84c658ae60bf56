"""Whether NIXL comes up, and what is done where it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from readahead.services.config import KvConfig
from readahead.services.kv import nixl_probe


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("raise ImportError('libucp.so.0 is missing')", "ImportError: libucp.so.0 is missing"),
        ("import os; os.abort()", "exit status -6"),
        ("", ""),
    ],
    ids=["import", "crash", "fine"],
)
def test_probe_says_what_is_wrong(
    body: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And survives what takes a process down."""
    (tmp_path / "nixl").mkdir()
    (tmp_path / "nixl" / "__init__.py").write_text(body)
    (tmp_path / "nixl" / "_api.py").write_text("nixl_agent = nixl_agent_config = lambda *a, **k: 0")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert nixl_probe.nixl_problem() == problem


@pytest.mark.parametrize("problem", ["", "no transport"])
def test_only_auto_is_settled(problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked for by name is not changed."""
    monkeypatch.setattr(nixl_probe, "nixl_problem", lambda: problem)
    settled = {
        each: nixl_probe.settled(KvConfig(backend=each)).backend
        for each in ("nixl", "grpc", "auto")
    }
    assert settled == {"nixl": "nixl", "grpc": "grpc", "auto": "grpc" if problem else "auto"}
