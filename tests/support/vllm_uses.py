"""What our files use of vLLM, as far as their source tells.

Decided are: imports; attributes of imported names; attributes of `self`, and overridden methods,
in classes that derive from vLLM's; attributes of variables that by their name hold an object of
vLLM's; keywords of vLLM's constructors; environment variables and modules in strings. Of every
other attribute in a file that touches vLLM it is asked whether anything of ours, or of the
libraries which that file imports, has that name: if not, it is taken for vLLM's.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from repo_tree import PACKAGE_ROOTS, ROOT, sources

HOLDERS = {
    "request": "Request",
    "core": "EngineCore",
    "llm": "AsyncLLM",
    "scheduler_output": "SchedulerOutput",
    "connector_output": "KVConnectorOutput",
    "scheduler_stats": "SchedulerStats",
    "completion": "CompletionOutput",
    "vllm_config": "VllmConfig",
    "kv_cache_config": "KVCacheConfig",
}
"""Variables that hold an object of this class, unless they are annotated with a type of ours."""
FOREIGN = {"destroy", "nixlAgentConfig", "pthrDelay", "inc", "vllm:nixl_num_grpc_fallbacks"}
"""Of ZeroMQ, NIXL and Prometheus; and a metric of ours under vLLM's prefix."""
MIXIN_BASE = "_Scheduler"
"""What a mixin for vLLM's scheduler calls its base."""
SCHEDULER = "vllm.v1.core.sched.scheduler:Scheduler"
_VARIABLE = re.compile(r"VLLM_[A-Z0-9_]+")
_MODULE = re.compile(r"vllm(?:\.\w+)+(?<!\.json)(?<!\.py)")
_METRIC = re.compile(r"(vllm:\w+?)(?:_count|_sum|_bucket|_total)?")
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Use:
    """A name of vLLM's in a file of ours."""

    name: str
    line: int
    owner: str = ""
    """The class or module that must declare it; "" where any may."""
    is_override: bool = False
    keywords: tuple[str, ...] = ()
    """Given to it by name."""


def key_of(path: Path) -> str:
    """How declarations name a file."""
    return str(path.relative_to(ROOT)).removeprefix("services/readahead/services/")


def touches(path: Path) -> bool:
    """Whether a file holds objects of vLLM's."""
    is_engine = path.parent.name == "engine" and path.name.startswith("vllm")
    is_declaration = path.name.startswith("vllm_internal") or path.name == "vllm_sources.py"
    return (is_engine or _imports_vllm(path)) and not is_declaration


def uses_of(path: Path) -> Iterator[Use]:
    """Every use that a file's source shows."""
    if "vllm" in path.read_text(encoding="utf-8").lower():
        holds_objects = touches(path) and path.is_relative_to(ROOT / "services")
        yield from uses_in(_tree(path), holds_objects=holds_objects)


def uses_in(tree: ast.Module, *, holds_objects: bool) -> Iterator[Use]:
    """Imports and strings; and where the code holds objects of vLLM's, what it does with them."""
    reader = _Reader(tree)
    found = [*reader.imports(), *reader.strings()]
    if holds_objects:
        found += [*reader.calls(), *reader.attributes(), *reader.subclasses()]
    for use in found:
        if use.name not in FOREIGN and not use.name.startswith("readahead_"):
            yield use


@dataclass(slots=True)
class _Reader:
    tree: ast.Module
    origin: dict[str, str] = field(default_factory=dict)
    """Of each name imported from vLLM: "module:name"."""
    others: set[str] = field(default_factory=set)
    """Names imported from elsewhere."""

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    name = alias.asname or alias.name
                    if _is_vllm(node.module or ""):
                        self.origin[name] = f"{node.module}:{alias.name}"
                    else:
                        self.others.add(name)
            elif isinstance(node, ast.Import):
                self.others |= {alias.asname or alias.name.split(".")[0] for alias in node.names}

    def imports(self) -> Iterator[Use]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and _is_vllm(node.module or ""):
                for alias in node.names:
                    yield Use(alias.name, node.lineno, owner=node.module or "")
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if _is_vllm(alias.name):
                        yield Use(alias.name.removeprefix("vllm."), node.lineno, owner="vllm")

    def strings(self) -> Iterator[Use]:
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
                continue
            text = node.value
            if _VARIABLE.fullmatch(text):
                yield Use(text, node.lineno, owner="vllm.envs")
            elif _MODULE.fullmatch(text):
                yield Use(text.removeprefix("vllm."), node.lineno, owner="vllm")
            elif found := _METRIC.fullmatch(text):
                yield Use(found[1], node.lineno)

    def calls(self) -> Iterator[Use]:
        """Constructors of vLLM's classes, and their functions, with what is given by name."""
        for function in ast.walk(self.tree):
            if not isinstance(function, _Function):
                continue
            for node in ast.walk(function):
                if not isinstance(node, ast.Call):
                    continue
                named = tuple(each.arg for each in node.keywords if each.arg)
                if isinstance(node.func, ast.Name) and node.func.id in self.origin:
                    for name in (*named, *_spread_keys(function, node)):
                        yield Use(name, node.lineno, owner=_class_name(self.origin[node.func.id]))
                elif (
                    named
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Name)
                    and node.func.value.id in self.origin
                ):
                    yield Use(node.func.attr, node.lineno, keywords=named)

    def attributes(self) -> Iterator[Use]:
        """Attributes of names imported from vLLM, of holders, and those that nobody else has."""
        known = _our_names() | _library_names(self.tree)
        for node, scope in _with_scopes(self.tree):
            if not isinstance(node, ast.Attribute):
                continue
            name, root = node.attr, self._root(node)
            is_direct = isinstance(node.value, ast.Name)
            if is_direct and root in self.origin:
                yield Use(name, node.lineno)
            elif is_direct and root in HOLDERS and _is_vllms(root, scope, name in known):
                yield Use(name, node.lineno, owner=HOLDERS[root])
            elif root not in self.others and name not in known:
                yield Use(name, node.lineno)

    def subclasses(self) -> Iterator[Use]:
        """What classes that derive from vLLM's take from it, and what they override."""
        for node, owners in self.derived(_derived_names()):
            yield from _of_subclass(node, owners)

    def derived(self, known: dict[str, list[str]]) -> Iterator[tuple[ast.ClassDef, list[str]]]:
        """Classes that derive from vLLM's, and from which.

        Args:
            known: the same by name, for classes of other files.
        """
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef):
                bases = [_name_of(base) for base in node.bases]
                owners = [self.origin[base] for base in bases if base in self.origin]
                owners += [each for base in bases for each in known.get(base, [])]
                owners += [SCHEDULER for base in bases if base == MIXIN_BASE]
                if owners:
                    yield node, owners

    def _root(self, node: ast.expr) -> str:
        while True:
            match node:
                case ast.Attribute(value=value) | ast.Call(func=value) | ast.Subscript(value=value):
                    node = value
                case ast.Name(id=name):
                    return name
                case _:
                    return ""


def _of_subclass(node: ast.ClassDef, owners: list[str]) -> Iterator[Use]:
    methods = [each for each in node.body if isinstance(each, _Function)]
    ours = {each.name for each in methods}
    for each in node.body:
        if isinstance(each, ast.AnnAssign | ast.Assign) and each.value is not None:
            ours |= {e.id for e in ast.walk(each) if isinstance(e, ast.Name)}
    for method in methods:
        taken = {arg.arg for arg in (*method.args.args[1:], *method.args.kwonlyargs)}
        passes_all = method.name == "__init__" and not taken
        if not passes_all:
            yield Use(method.name, method.lineno, owner=" ".join(owners), is_override=True)
        for inner in ast.walk(method):
            if isinstance(inner, ast.Attribute) and _is_self(inner.value):
                if method.name == "__init__" and isinstance(inner.ctx, ast.Store):
                    ours.add(inner.attr)
                elif inner.attr not in ours | _our_names():
                    yield Use(inner.attr, inner.lineno)


def _spread_keys(function: ast.AST, call: ast.Call) -> Iterator[str]:
    """Keys of the dictionaries given with ** that the same function makes."""
    spread = {e.value.id for e in call.keywords if e.arg is None and isinstance(e.value, ast.Name)}
    for node in ast.walk(function):
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict(keys=keys)) if (
                name in spread
            ):
                found: list[ast.expr | None] = list(keys)
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys)) if (
                name in spread
            ):
                found = list(keys)
            case ast.Subscript(value=ast.Name(id=name), slice=key, ctx=ast.Store()) if (
                name in spread
            ):
                found = [key]
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="setdefault"), args=[key, *_]
            ) if name in spread:
                found = [key]
            case _:
                continue
        for each in found:
            if isinstance(each, ast.Constant) and isinstance(each.value, str):
                yield each.value


def _with_scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, list[_Function]]]:
    """Each node, with the functions that it is in."""
    stack: list[tuple[ast.AST, list[_Function]]] = [(tree, [])]
    while stack:
        node, scope = stack.pop()
        yield node, scope
        inner = [*scope, node] if isinstance(node, _Function) else scope
        stack.extend((child, inner) for child in ast.iter_child_nodes(node))


def _is_vllms(name: str, scope: list[_Function], has_our_attribute: bool) -> bool:
    """Whether a holder's variable has vLLM's object: by its annotation, if it is a parameter."""
    for function in reversed(scope):
        for each in (*function.args.args, *function.args.kwonlyargs):
            if each.arg == name:
                shown = "" if each.annotation is None else ast.unparse(each.annotation)
                return shown in {"", "Any", "AsyncLLM", "VllmConfig", "KVCacheConfig"}
    return not has_our_attribute


def _name_of(base: ast.expr) -> str:
    match base:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _is_dataclass(node: ast.AST) -> bool:
    decorators = node.decorator_list if isinstance(node, ast.ClassDef) else []
    return any("dataclass" in ast.unparse(each) for each in decorators)


def _is_self(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="self") | ast.Call(func=ast.Name(id="super")):
            return True
        case _:
            return False


def _class_name(origin: str) -> str:
    return origin.partition(":")[2]


def _is_vllm(module: str) -> bool:
    return module == "vllm" or module.startswith("vllm.")


def _imports_vllm(path: Path) -> bool:
    return "vllm" in path.read_text(encoding="utf-8") and bool(_Reader(_tree(path)).origin)


@lru_cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache
def _derived_names() -> dict[str, list[str]]:
    """Classes of ours that derive from vLLM's, by name, and from which."""
    found: dict[str, list[str]] = {}
    paths = [path for path in sources() if touches(path)]
    for path in paths * 2:  # twice: a base may come after those who derive from it
        for node, owners in _Reader(_tree(path)).derived(found):
            found[node.name] = sorted({*owners})
    return found


@lru_cache
def _our_names() -> frozenset[str]:
    """Whatever our packages define: functions, classes, variables and attributes.

    Of a class that derives from vLLM's only what its `__init__` sets: elsewhere it sets vLLM's own.
    """
    found: set[str] = set()
    for path in sources():
        if any(path.is_relative_to(ROOT / root) for root in PACKAGE_ROOTS):
            tree = _tree(path)
            reader = _Reader(tree) if touches(path) else None
            derived = [node for node, _ in reader.derived(_derived_names())] if reader else []
            for node in ast.iter_child_nodes(tree):
                found |= _defined(node, sets_own=node not in derived or _is_dataclass(node))
    return frozenset(found)


def _defined(tree: ast.AST, *, sets_own: bool) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.FunctionDef(name=name):
                found.add(name)
                if name == "__init__" and not sets_own:
                    found |= _defined(ast.Module(node.body, []), sets_own=True)
            case ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if sets_own or value:
                found.add(name)
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self")) if sets_own:
                found.add(name)
    return found


def _library_names(tree: ast.Module) -> set[str]:
    """What built-in types have, and the modules of the standard library that a file imports."""
    found = {name for kind in vars(builtins).values() for name in dir(kind)}
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    for name in modules:
        if name.split(".")[0] in sys.stdlib_module_names:
            module = importlib.import_module(name)
            found |= {each for value in vars(module).values() for each in dir(value)}
    return found
