"""The page on errors says what the code does."""

from __future__ import annotations

import runpy
from pathlib import Path

from readahead.core.errors import REASONS, Reason

ROOT = Path(__file__).resolve().parents[2]


def test_errors_page_is_current() -> None:
    """The page is what its script makes of the table."""
    script = runpy.run_path(str(ROOT / "tools/render_errors.py"))
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    assert page == script["page"](), "run python tools/render_errors.py"


def test_reason_table_is_total() -> None:
    """Each reason has its row, and its words on the page."""
    script = runpy.run_path(str(ROOT / "tools/render_errors.py"))
    assert set(REASONS) == set(Reason) == set(script["HAPPENS"])
