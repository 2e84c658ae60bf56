"""The documentation agrees with the tree."""

from __future__ import annotations

import re
from pathlib import Path

import code_names
import pytest
import repo_tools
from repo_tree import ROOT, files, markdown, shown, sources

from readahead.runtime.telemetry import attributes

DOCS = ROOT / "docs"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
CODE_BLOCK = re.compile(r"^```.*?^```$|^ {4}.*$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CITATION = re.compile(r"Ref: (\[.*?)(?:\"\"\"|\n\s*\n)", re.DOTALL)
DOTTED = re.compile(r"`(readahead(?:\.\w+)+)(?:\(\))?`")


def _slug(heading: str) -> str:
    """The anchor that a heading gets."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return kept.replace(" ", "-")


def _anchors(path: Path) -> set[str]:
    text = FENCED.sub("", path.read_text(encoding="utf-8"))
    return {_slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", markdown(), ids=shown)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file of the tree, each anchor a heading."""
    known = set(files())
    folders = {folder for path in known for folder in path.parents}
    dead = []
    for match in LINK.finditer(FENCED.sub("", page.read_text(encoding="utf-8"))):
        target = match[1] or match[2]
        if re.match(r"[a-z+]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        is_there = path in known or path in folders
        if not is_there or (anchor and path.suffix == ".md" and anchor not in _anchors(path)):
            dead.append(target)
    assert dead == []


def test_names_of_code_exist() -> None:
    """Each function, class or module named in the documentation is in the tree."""
    protos = "\n".join(p.read_text(encoding="utf-8") for p in files() if p.suffix == ".proto")
    spans = {value for value in vars(attributes).values() if isinstance(value, str)}
    unknown = []
    for page in markdown():
        for dotted in DOTTED.findall(page.read_text(encoding="utf-8")):
            if dotted in spans or code_names.exists(dotted):
                continue
            if dotted.startswith("readahead.v1"):
                words = dotted.split(".")[2:]
                if all(re.search(rf"\b(?:service|message|rpc|enum) {w}\b", protos) for w in words):
                    continue
            unknown.append(f"{shown(page)}: {dotted}")
    assert unknown == []


def test_journey_is_told_in_steps() -> None:
    """The journey names functions, in steps numbered without a gap."""
    text = (DOCS / "explanation" / "journey-of-a-request.md").read_text(encoding="utf-8")
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", text, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    assert len(DOTTED.findall(text)) > len(steps)


@pytest.mark.parametrize(
    "tool", ["render_config", "render_metrics", "render_lifecycle", "render_ruler"]
)
def test_generated_pages_are_current(tool: str) -> None:
    """Pages made from the code are what the code makes of them today."""
    assert repo_tools.is_current(tool), f"run: python tools/{tool}.py"


def test_references_resolve() -> None:
    """Each `Ref: [Key …]` in a comment is in references.bib, and each key there is used."""
    bib = (DOCS / "references.bib").read_text(encoding="utf-8")
    known = set(re.findall(r"^@\w+\{([^,]+),", bib, re.MULTILINE))
    used = {
        key
        for path in sources()
        if path != Path(__file__).resolve()
        for block in CITATION.findall(path.read_text(encoding="utf-8"))
        for key in re.findall(r"\[([^\] ]+)(?: §[^\]]*)?\]", block)
    }
    assert used == known


def test_decisions_have_their_parts() -> None:
    """Each decision is listed, has all its parts, and fits on a page."""
    pages = sorted((DOCS / "adr").glob("[0-9]*.md"))
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], page.name
        assert re.search(r"^Status: \w+", text, re.MULTILINE), page.name
        assert f"({page.name})" in index, page.name
        assert len(text.split()) < 700, page.name


def test_invariants_are_checked_where_they_say() -> None:
    """Files named by an invariant exist, and numbered tests have an invariant."""
    text = (DOCS / "reference" / "invariants.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^\| (\d\d) \|", text, re.MULTILINE)
    assert numbers == [f"{n:02}" for n in range(1, len(numbers) + 1)]
    for name in re.findall(r"`(tests/[\w/.]+)`", text):
        assert (ROOT / name).is_file(), name
    for path in sources():
        for number in re.findall(r"def test_inv_(\d\d)_", path.read_text(encoding="utf-8")):
            assert number in numbers, shown(path)


def test_commands_exist() -> None:
    """Scripts and make targets that the documentation names are there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in markdown():
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"python (tools/\w+\.py)", text):
            assert (ROOT / name).is_file(), f"{shown(page)}: {name}"
        commands = "\n".join(CODE_BLOCK.findall(text) + re.findall(r"`([^`\n]+)`", text))
        for target in re.findall(r"^ *make ([a-z][\w-]*)", commands, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{shown(page)}: {target}"


def test_no_page_is_an_orphan() -> None:
    """Each page under docs/ is reached from another page."""
    linked = set()
    for page in markdown():
        for match in LINK.finditer(page.read_text(encoding="utf-8")):
            target = (match[1] or match[2]).partition("#")[0]
            if target and "://" not in target:
                linked.add((page.parent / target).resolve())
    pages = {page for page in markdown() if page.is_relative_to(DOCS)} - {DOCS / "README.md"}
    assert {shown(page) for page in pages - linked} == set()
