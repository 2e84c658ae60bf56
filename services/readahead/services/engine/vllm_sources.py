"""Looks names up in vLLM's source, which need not be importable, nor the version that is installed.

Names are found as Python would find them: through re-exports and base classes. What vLLM makes
only while it runs is not seen, but for attributes that some method assigns on `self`.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BUILT_IN = {"deque": deque, "dict": dict, "list": list, "set": set, "Exception": Exception}
"""Base classes that are not vLLM's and whose names we use."""
UNKNOWN = "unknown"
"""Version of a vLLM that does not say it."""
_HOPS_MAX = 10
"""Re-exports of re-exports."""


def installed_folder() -> Path | None:
    """The package `vllm` of this environment; None where there is none. Imports nothing."""
    found = importlib.util.find_spec("vllm")
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


@dataclass(slots=True)
class VllmSources:
    """The package `vllm` in a folder: installed, or a wheel that was unpacked."""

    folder: Path
    _trees: dict[str, ast.Module | None] = field(default_factory=dict)
    _texts: dict[str, str] = field(default_factory=dict)
    _names: dict[str, set[str]] = field(default_factory=dict)
    """What a class or its objects have, by owner."""

    @property
    def version(self) -> str:
        """As the package says it, or UNKNOWN."""
        file = self.folder / "_version.py"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        found = re.search(r"^__version__ = .*?['\"]([^'\"+]+)", text, re.MULTILINE)
        return found[1] if found else UNKNOWN

    def exists(self, owner: str) -> bool:
        """Whether there is this module, or "module:Class"."""
        module, _, name = owner.partition(":")
        return self._class_of(owner) is not None if name else self._tree(module) is not None

    def has(self, owner: str, name: str) -> bool:
        """Whether a module has a name or a submodule, or a class or its objects an attribute."""
        module, _, in_class = owner.partition(":")
        if in_class:
            if owner not in self._names:
                self._names[owner] = self._names_of(owner)
            return name in self._names[owner]
        is_submodule = self._tree(f"{module}.{name}") is not None
        return is_submodule or self._definition(module, name) is not None

    def parameters(self, owner: str, name: str) -> list[tuple[str, bool]] | None:
        """A function's parameters, but for `self`, and whether each must be given.

        None where it is no function.
        """
        function = self._function(owner, name)
        if function is None:
            return None
        spec = function.args
        plain = [*spec.posonlyargs, *spec.args]
        if ":" in owner and "staticmethod" not in _decorators(function):
            plain = plain[1:]
        missing = len(plain) - min(len(spec.defaults), len(plain))
        found = [(each.arg, index < missing) for index, each in enumerate(plain)]
        for each, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True):
            found.append((each.arg, default is None))
        return found

    def text(self, owner: str) -> str:
        """A module's or class's code on one line per statement, without comments; "" if none."""
        if owner not in self._texts:
            module, _, in_class = owner.partition(":")
            found = self._class_of(owner) if in_class else None
            node = found[1] if found else None if in_class else self._tree(module)
            self._texts[owner] = ast.unparse(node) if node is not None else ""
        return self._texts[owner]

    def _tree(self, module: str) -> ast.Module | None:
        if module not in self._trees:
            path = self.folder.joinpath(*module.split(".")[1:])
            files = (path / "__init__.py", path.with_suffix(".py"))
            file = next((each for each in files if each.is_file()), None)
            is_ours = module == "vllm" or module.startswith("vllm.")
            text = file.read_text(encoding="utf-8") if file and is_ours else None
            self._trees[module] = None if text is None else ast.parse(text)
        return self._trees[module]

    def _definition(self, module: str, name: str, hops: int = 0) -> tuple[str, ast.stmt] | None:
        """The statement that makes a name, and the module that it is in."""
        tree = self._tree(module)
        if tree is None or hops > _HOPS_MAX:
            return None
        imported: tuple[str, ast.stmt] | None = None
        for statement in _statements(tree.body):
            if isinstance(statement, ast.ImportFrom):
                for alias in statement.names:
                    if (alias.asname or alias.name) == name:
                        origin = self._origin(module, statement)
                        found = self._definition(origin, alias.name, hops + 1)
                        imported = found or imported or (module, statement)
            elif name in _bound(statement):
                return module, statement
        return imported

    def _origin(self, module: str, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        path = self.folder.joinpath(*module.split(".")[1:])
        parts = module.split(".")
        up = statement.level - (1 if path.is_dir() else 0)
        base = parts[: len(parts) - up]
        return ".".join([*base, *([statement.module] if statement.module else [])])

    def _class_of(self, owner: str) -> tuple[str, ast.ClassDef] | None:
        module, _, name = owner.partition(":")
        found = self._definition(module, name)
        if found is None or not isinstance(found[1], ast.ClassDef):
            return None
        return found[0], found[1]

    def _lineage(self, owner: str, hops: int = 0) -> Iterator[tuple[str, ast.ClassDef]]:
        """A class and its bases, depth first."""
        found = self._class_of(owner)
        if found is None or hops > _HOPS_MAX:
            return
        yield found
        for base in _base_names(found[1]):
            yield from self._lineage(f"{found[0]}:{base}", hops + 1)

    def _names_of(self, owner: str) -> set[str]:
        nodes = [node for _, node in self._lineage(owner)]
        found = {name for node in nodes for name in _members(node)}
        for base in {base for node in nodes for base in _base_names(node)} & _BUILT_IN.keys():
            found.update(dir(_BUILT_IN[base]))
        return found

    def _function(self, owner: str, name: str) -> _Function | None:
        module, _, in_class = owner.partition(":")
        if not in_class:
            found = self._definition(module, name)
            return found[1] if found and isinstance(found[1], _Function) else None
        for _, node in self._lineage(owner):
            ours = [each for each in node.body if isinstance(each, _Function) and each.name == name]
            if ours:
                return ours[-1]  # those before it are overloads
        return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those that run when a module is imported, whatever branch they are in."""
    for statement in body:
        yield statement
        for part in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(statement, part, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement makes, imports from elsewhere aside."""
    match statement:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {e.id for target in targets for e in ast.walk(target) if isinstance(e, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Import(names=names):
            return {alias.asname or alias.name.split(".")[0] for alias in names}
        case _:
            return set()


def _members(node: ast.ClassDef) -> set[str]:
    """What a class or its objects have, by this class's own code."""
    found = {name for statement in node.body for name in _bound(statement)}
    for each in ast.walk(node):
        if (
            isinstance(each, ast.Attribute)
            and isinstance(each.ctx, ast.Store)
            and isinstance(each.value, ast.Name)
            and each.value.id == "self"
        ):
            found.add(each.attr)
    return found


def _base_names(node: ast.ClassDef) -> list[str]:
    bases = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [base.id for base in bases if isinstance(base, ast.Name)]


def _decorators(function: _Function) -> set[str]:
    return {each.id for each in function.decorator_list if isinstance(each, ast.Name)}
