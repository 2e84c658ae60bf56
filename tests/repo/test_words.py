"""Words that do not belong into the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repo_tree import GENERATED, files, shown

SELF = Path(__file__).resolve()

BANNED = {
    "a path of one machine": r"(?<![\w.$}])/(?:work|root|tmp/lab)/",
    "an address of a package index": (
        r"--(?:extra-)?index-url[ =]https?:|https?://\S*/simple\b|pythonhosted\.org"
        r"|//pypi\.|//download\.pytorch\.org"
    ),
    "work that never merges": r"\b(?:FIXME|XXX)\b",
    "work without an issue": r"\bTODO\b(?!\(\w+\): .*#\d+)",
    "a tool that wrote it": r"(?i)\b(?:claude|copilot|chatgpt|codex)\b",
    "a marker of a merge": r"^(?:<{7} |>{7} |={7}$)",
}
TEXT = {
    ".cfg", ".in", ".ini", ".js", ".json", ".lua", ".md", ".proto", ".py", ".pyi", ".sh", ".toml",
    ".tpl", ".txt", ".yaml", ".yml", "",
}  # fmt: skip


@pytest.mark.parametrize("why", BANNED)
def test_no_banned_words(why: str) -> None:
    """Nothing in the tree speaks of a machine, an index, or work left undone."""
    pattern = re.compile(BANNED[why], re.MULTILINE)
    found = []
    for path in files():
        if path == SELF or path.suffix not in TEXT or path.name == "LICENSE":
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(f"{shown(path)}:{line} {match[0]!r}")
    assert found == []


def test_text_files_end_with_a_newline() -> None:
    """Each text file ends with exactly one newline, without carriage returns."""
    wrong = []
    for path in files():
        if path.suffix in TEXT - {""} and not path.is_relative_to(GENERATED):
            data = path.read_bytes()
            if data and (not data.endswith(b"\n") or data.endswith(b"\n\n") or b"\r" in data):
                wrong.append(shown(path))
    assert wrong == []
