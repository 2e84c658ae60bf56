"""`readahead tricks`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from readahead.cli.main import app
from readahead.ruler import demo


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rates and requests than the picture of the documentation has."""
    monkeypatch.setattr(demo, "DROP_RATES_REQ_S", (2.0, demo.DROP_RATE_REQ_S))
    monkeypatch.setattr(demo, "DROP_REQUESTS", 150)
    monkeypatch.setattr(demo, "DROP_SEEDS", 1)
    monkeypatch.setattr(demo, "DELAY_REQUESTS", 40)


def test_it_shows_both_tricks_and_draws_the_same_picture_twice(tmp_path: Path) -> None:
    """Tables, the picture byte for byte the same, and a page that holds both."""
    pictures = [tmp_path / "one.svg", tmp_path / "two.svg"]
    page = tmp_path / "page.html"
    first = CliRunner().invoke(app, ["tricks", "--svg", str(pictures[0]), "--html", str(page)])
    second = CliRunner().invoke(app, ["tricks", "--svg", str(pictures[1])])
    assert (first.exit_code, second.exit_code) == (0, 0), first.output
    for word in ("Output delay", "40 delayed", "Abandonment", "abandonment", "simulated"):
        assert word in first.output
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert pictures[0].stat().st_size < 100_000
    assert "<svg" in page.read_text()
    assert "answers cut off" in page.read_text()


def test_wrong_usage_is_said_before_anything_runs(tmp_path: Path) -> None:
    """A picture of an unknown kind is 2, a folder that is not there 1."""
    assert CliRunner().invoke(app, ["tricks", "--svg", "picture.txt"]).exit_code == 2
    missing = tmp_path / "no" / "picture.svg"
    result = CliRunner().invoke(app, ["tricks", "--svg", str(missing)])
    assert result.exit_code == 1
    assert "error:" in result.output
