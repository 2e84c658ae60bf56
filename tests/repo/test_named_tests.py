"""Tests and rules that pages name are there: `file::test`, policies and their knobs."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import repo_tools
from repo_tree import ROOT, markdown, shown

from readahead.core.planning.policies.registry import POLICIES

NAMED = re.compile(r"`(tests/[\w/.]+\.py)::([\w.]+)`")
SLACK = ROOT / "docs" / "explanation" / "slack.md"
POLICIES_PAGE = ROOT / "docs" / "reference" / "policies.md"


@cache
def _tests_of(path: Path) -> set[str]:
    """Names as pytest has them, without parameters: `test_x`, `TestX.test_y`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            within = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            found |= {f"{node.name}.{each.name}" for each in within}
    return {each for each in found if each.rpartition(".")[2].startswith("test_")}


@pytest.mark.parametrize("page", markdown(), ids=shown)
def test_tests_that_a_page_names_exist(page: Path) -> None:
    """Each `tests/file.py::test` is a test of that file."""
    dead = [
        f"{file}::{name}"
        for file, name in NAMED.findall(page.read_text(encoding="utf-8"))
        if not (ROOT / file).is_file() or name not in _tests_of(ROOT / file)
    ]
    assert dead == []


def test_each_claim_about_slack_has_a_proof_or_a_test() -> None:
    """From one claim to the next, or to the next heading or remark, there is one of both."""
    text = SLACK.read_text(encoding="utf-8")
    claims = re.findall(r"^\*\*Claim: .*?(?=^\*\*|^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert len(claims) == text.count("**Claim: ")
    assert claims
    bare = [
        claim.splitlines()[0]
        for claim in claims
        if not re.search(r"^Proof[.:]", claim, re.MULTILINE) and not NAMED.search(claim)
    ]
    assert bare == []


@pytest.mark.parametrize("tool", ["render_slack", "render_policies"])
def test_generated_parts_are_current(tool: str) -> None:
    """What is made from the code is what the code makes of it today."""
    assert repo_tools.is_current(tool), f"run: python tools/{tool}.py"


@pytest.mark.parametrize("policy", POLICIES)
def test_each_policy_is_told_in_full(policy: str) -> None:
    """Its rule, in three lines; its source; where it is good and where it is harmful; its knobs."""
    text = POLICIES_PAGE.read_text(encoding="utf-8")
    section = text.partition(f"\n## {policy}\n")[2].partition("\n## ")[0]
    rule = re.search(r"^\*\*Rule\.\*\*\n((?:.+\n)+)", section, re.MULTILINE)
    assert rule
    assert len(rule[1].splitlines()) == 3
    for part in ("**Source.** ", "**Good**", "**harmful**", "| knob | unit |"):
        assert part.lower() in section.lower(), part
