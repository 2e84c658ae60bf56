"""The tree stays small, flat and importable."""

from __future__ import annotations

import ast
from collections import Counter

from repo_tree import GENERATED, PACKAGE_ROOTS, ROOT, files, shown, sources

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
FILE_BYTES_MAX = 1_000_000
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "base", "misc"}
"""Names that say nothing of what is inside."""


def test_no_stray_init() -> None:
    """The namespace has several roots: an `__init__.py` in one of them hides the others."""
    strays = [shown(p) for p in files() if p.name == "__init__.py" and p.parent.name == "readahead"]
    assert strays == []
    for root in PACKAGE_ROOTS:
        assert not (ROOT / root / "readahead" / "__init__.py").exists()
        assert not (ROOT / root / "__init__.py").exists()


def test_files_are_short() -> None:
    """No source file is longer than a person reads in one go."""
    lengths = {shown(p): len(p.read_text(encoding="utf-8").splitlines()) for p in sources()}
    assert {name: n for name, n in lengths.items() if n > FILE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    """No function is longer than a screen."""
    long: dict[str, int] = {}
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{shown(path)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_modules_are_named_after_something() -> None:
    """A module's name says what is in it."""
    vague = [shown(p) for p in sources() if p.stem in VAGUE or p.parent.name in VAGUE]
    assert vague == []


def test_test_files_have_unique_names() -> None:
    """A test's file name alone says which one is meant, and import modes do not clash."""
    names = Counter(p.name for p in sources() if p.name.startswith("test_"))
    assert [name for name, count in names.items() if count > 1] == []


def test_support_modules_have_names_of_their_own() -> None:
    """Modules of tests/support are imported flat, so none may hide an installed package."""
    import importlib.metadata

    installed = importlib.metadata.packages_distributions()
    support = {p.stem for p in sources() if p.parent == ROOT / "tests" / "support"}
    assert support & installed.keys() == set()


def test_no_large_files() -> None:
    """Data of size does not belong into the history."""
    large = {shown(p): p.stat().st_size for p in files() if p.stat().st_size > FILE_BYTES_MAX}
    assert large == {}


def test_roots_hold_the_namespace_alone() -> None:
    """Every file under a root lies in the namespace, so that nothing generic is installed."""
    for root in PACKAGE_ROOTS:
        outside = [
            shown(p)
            for p in files()
            if p.is_relative_to(ROOT / root)
            and p.suffix == ".py"
            and not p.is_relative_to(ROOT / root / "readahead")
        ]
        assert outside == []
    assert GENERATED.is_dir()
