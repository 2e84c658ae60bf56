"""Finds out whether a dotted name exists in the tree, without importing it."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from repo_tree import PACKAGE_ROOTS, ROOT

_Body = list[ast.stmt]


def exists(dotted: str) -> bool:
    """Whether a name such as `readahead.router.driver.Driver.handle` is defined."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        for root in PACKAGE_ROOTS:
            path = ROOT / root / Path(*parts[:length])
            if path.with_suffix(".py").is_file():
                return _defines(_module(path.with_suffix(".py")), parts[length:])
            if path.is_dir() and length == len(parts):
                return True
    return False


@lru_cache
def _module(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _defines(module: ast.Module, names: list[str]) -> bool:
    body: _Body = module.body
    for depth, name in enumerate(names):
        found = [node for node in body if name in _names(node)]
        if not found:
            return False
        body = found[0].body if isinstance(found[0], ast.ClassDef) else []
        if not body and depth + 1 < len(names):
            return False
    return True


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case _:
            return set()
