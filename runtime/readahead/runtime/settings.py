"""Reads a tree of settings: YAML file, then environment, then `a.b=c`, each over the one before."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

DEFAULT = "default"
NOWHERE = "nowhere set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the settings."""

    key: str
    """Dotted; empty for the tree as a whole."""
    origin: str
    """Where the value came from: `file …`, `environment …`, `--set`, `default`, or
    `nowhere set`."""
    message: str

    def __str__(self) -> str:
        return f"{self.key or 'settings'} ({self.origin}): {self.message}"


class SettingsError(Exception):
    """The settings cannot be used; says each key, where it came from and what is allowed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """Settings and where each of them came from."""

    config: T
    sources: Mapping[str, str]
    """Origin of every leaf, by dotted key, in the tree's order."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One value that somebody set."""

    key: str
    value: Any
    origin: str


def load(
    config_type: type[T],
    *,
    file: Path | None,
    environ: Mapping[str, str],
    prefix: str,
    overrides: Sequence[str],
) -> Loaded[T]:
    """Reads settings of one type.

    Args:
        config_type: a frozen dataclass of `readahead.core.config.Checked`.
        file: YAML mapping with the tree's keys.
        environ: `<prefix>__ADMISSION__WAIT_S_MAX=30` sets `admission.wait_s_max`.
        prefix: as in `READAHEAD_ROUTER`.
        overrides: `admission.wait_s_max=30`, the last one of a key wins.

    Raises:
        SettingsError: a key is unknown, or a value is not of its type or out of its range.
    """
    given: dict[str, _Given] = {}
    for entry in (
        *_from_file(file),
        *_from_environment(config_type, environ, prefix.rstrip("_") + "__"),
        *_from_overrides(config_type, overrides),
    ):
        if _is_section(config_type, entry):
            continue  # a heading with nothing under it
        given[entry.key] = entry
    tree: dict[str, Any] = {}
    for entry in given.values():
        _put(tree, entry.key.split("."), entry.value)
    try:
        config = TypeAdapter(config_type).validate_python(tree)
    except ValidationError as error:
        raise SettingsError(_problems(config_type, given, error)) from error
    sources = {key: given[key].origin if key in given else DEFAULT for key in leaves(config)}
    return Loaded(config, sources)


def json_schema(config_type: type[Any]) -> dict[str, Any]:
    """JSON schema of the settings, unknown keys excluded at every level."""
    return TypeAdapter(config_type).json_schema()


def leaves(config: object, prefix: str = "") -> dict[str, object]:
    """Every single value of a tree of settings by its dotted key, in the tree's order."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(typing.cast(Any, config)):  # callers pass dataclasses only
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= leaves(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


# --- the three origins ----------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML's own answer is to forget the first."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [
        loader.construct_object(key, deep=True)
        for key, _ in node.value
        if key.tag != "tag:yaml.org,2002:merge"
    ]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} is there twice", node.start_mark
            )
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _from_file(file: Path | None) -> Iterator[_Given]:
    if file is None:
        return
    origin = f"file {file}"
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal("", origin, f"cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise _refusal("", origin, f"is not YAML: {error}") from error
    if document is None:
        return
    if not isinstance(document, dict):
        raise _refusal("", origin, f"must be a mapping, is a {type(document).__name__}")
    yield from _flattened(document, "", origin)


def _flattened(section: Mapping[Any, Any], prefix: str, origin: str) -> Iterator[_Given]:
    for name, value in section.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _flattened(value, f"{key}.", origin)
        else:
            yield _Given(key, value, origin)


def _from_environment(
    config_type: type[Any], environ: Mapping[str, str], prefix: str
) -> Iterator[_Given]:
    for name in sorted(environ):
        if name.startswith(prefix):
            key = name.removeprefix(prefix).lower().replace("__", ".")
            origin = f"environment {name}"
            yield _Given(key, _parsed(config_type, key, environ[name], origin), origin)


def _from_overrides(config_type: type[Any], overrides: Sequence[str]) -> Iterator[_Given]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise _refusal(key, "--set", f"must be key=value, got {override!r}")
        yield _Given(key.strip(), _parsed(config_type, key.strip(), text, "--set"), "--set")


def _parsed(config_type: type[Any], key: str, text: str, origin: str) -> Any:
    """The value behind a text: what its field is decides, so a name may look like a number."""
    field_type = _type_of(config_type, key)
    if field_type is str or (isinstance(field_type, type) and issubclass(field_type, StrEnum)):
        return text
    if _is_tuple(field_type) and not text.lstrip().startswith("["):
        return [item.strip() for item in text.split(",") if item.strip()]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _refusal(key, origin, f"cannot be parsed: {text!r}") from error


# --- the tree -------------------------------------------------------------------------------


def _fields(section: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def _type_of(config_type: type[Any], key: str) -> Any:
    """Type of the field at a dotted key; None iff there is none."""
    current: Any = config_type
    for name in key.split("."):
        current = _fields(current).get(name) if dataclasses.is_dataclass(current) else None
    return current


def _is_tuple(field_type: Any) -> bool:
    origin = typing.get_origin(field_type)
    if origin in {typing.Union, types.UnionType}:
        return any(_is_tuple(part) for part in typing.get_args(field_type))
    return origin is tuple


def _is_section(config_type: type[Any], entry: _Given) -> bool:
    """True iff the key is a section's; refuses unknown keys here, where their origin is at hand."""
    current: Any = config_type
    path: list[str] = []
    for name in entry.key.split("."):
        names = _fields(current) if dataclasses.is_dataclass(current) else {}
        if name not in names:
            where = ".".join(path)
            raise _refusal(entry.key, entry.origin, _unknown(name, where, tuple(names)))
        current = names[name]
        path.append(name)
    if not dataclasses.is_dataclass(current):
        return False
    if entry.value is not None:
        inside = ", ".join(_fields(current))
        raise _refusal(entry.key, entry.origin, f"is a section, with {inside}")
    return True


def _unknown(name: str, where: str, names: Sequence[str]) -> str:
    if not names:
        return f"unknown key; {where} is a single value"
    close = difflib.get_close_matches(name, names, n=1)
    prefix = f"{where}." if where else ""
    if close:
        return f"unknown key; did you mean {prefix}{close[0]}?"
    return f"unknown key; {where or 'the top level'} has {', '.join(names)}"


def _put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *sections, name = path
    for section in sections:
        tree = tree.setdefault(section, {})
    tree[name] = value


# --- what is wrong --------------------------------------------------------------------------


def _refusal(key: str, origin: str, message: str) -> SettingsError:
    return SettingsError([Problem(key=key, origin=origin, message=message)])


def _problems(
    config_type: type[Any], given: Mapping[str, _Given], error: ValidationError
) -> list[Problem]:
    problems = []
    for found in error.errors(include_url=False):
        path = [part for part in found["loc"] if isinstance(part, str)]
        message = found["msg"]
        if found["type"] == "value_error":
            message = message.removeprefix("Value error, ")
            path += _named_field(config_type, path, message)
        elif found["type"] == "missing":
            problems.append(Problem(key=".".join(path), origin=NOWHERE, message="must be set"))
            continue
        else:
            message = f"{message}, got {found['input']!r}"
        key = ".".join(path)
        problems.append(Problem(key=key, origin=_origin(given, key), message=message))
    return problems


def _named_field(config_type: type[Any], path: Sequence[str], message: str) -> list[str]:
    """A check in `__post_init__` starts its message with the field's name, as `section.field`."""
    section = _type_of(config_type, ".".join(path)) if path else config_type
    name = message.split(maxsplit=1)[0].rpartition(".")[2] if message else ""
    if dataclasses.is_dataclass(section) and name in _fields(section):
        return [name]
    return []


def _origin(given: Mapping[str, _Given], key: str) -> str:
    """Where a key was set; for a section, wherever something in it was."""
    if key in given:
        return given[key].origin
    section = key.rpartition(".")[0]
    inside = {entry.origin: None for name, entry in given.items() if name.startswith(f"{key}.")}
    beside = {
        entry.origin: None
        for name, entry in given.items()
        if section and name.startswith(f"{section}.")
    }
    return " and ".join(inside or beside) or DEFAULT
