"""Scenarios by name, with what a workload file says of them."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, replace

from readahead.workload.lengths import Lengths, QuantileTable, parse_lengths
from readahead.workload.lengths_fitted import FITTED, load_fitted
from readahead.workload.lengths_joint import IndependentPair, LengthPair
from readahead.workload.readers import READERS, Durations, ReaderPopulation
from readahead.workload.scenarios import (
    ConversationScenario,
    Fit,
    Scenario,
    chatbot,
    coder,
    summarization,
)
from readahead.workload.scenarios_mixed import MixedScenario, mixed
from readahead.workload.scenarios_reasoning import ReasoningScenario, reasoning
from readahead.workload.scenarios_slo import slo_class
from readahead.workload.scenarios_tools import ToolScenario, tool_calling
from readahead.workload.slo import SloClass

Parameters = Mapping[str, object]
SingleScenario = ConversationScenario | ToolScenario | ReasoningScenario

SINGLE: Mapping[str, Callable[..., SingleScenario]] = {
    "chatbot": chatbot,
    "coder": coder,
    "summarization": summarization,
    "tool-calling": tool_calling,
    "reasoning": reasoning,
}
SCENARIOS = ("chatbot", "coder", "summarization", "mixed", "tool-calling", "reasoning")
"""Every name that `make_scenario` knows."""

FIT_FIELDS = frozenset(one.name for one in fields(Fit))
NOT_PARAMETERS = frozenset({"name", "fit"})


def make_scenario(name: str, parameters: Parameters | None = None) -> Scenario:
    """The scenario of that name, with parameters as a workload file has them.

    Parameters are the scenario's fields, those of `Fit`, and `large` (true: the SLOs of large
    models). Lengths are "128", "lognormal:median=200,sigma=0.8" or, for pairs, the name of a
    fitted distribution or an object with `prompt` and `output`; readers are a preset's name or
    an object of fields, with `preset` for the rest; an SLO is a class's name or an object.

    Raises:
        ValueError: no such scenario or parameter, or one that is out of range; the message names
            it and lists those there are.
    """
    given = dict(parameters or {})
    if name == "mixed":
        return _mixed(given)
    if name not in SINGLE:
        raise ValueError(f"no scenario is called {name!r}; known: {', '.join(SCENARIOS)}")
    return _single(name, given)


def parameters_of(name: str) -> tuple[str, ...]:
    """What `make_scenario` takes for this scenario."""
    if name == "mixed":
        return ("parts", "large", *sorted(FIT_FIELDS))
    hints = typing.get_type_hints(_kind(SINGLE[name]))
    return (*sorted(hints.keys() - NOT_PARAMETERS), "large", *sorted(FIT_FIELDS))


def _kind(build: Callable[..., SingleScenario]) -> type[SingleScenario]:
    kind: type[SingleScenario] = typing.get_type_hints(build)["return"]
    return kind


def _single(name: str, given: dict[str, object]) -> SingleScenario:
    is_large = _boolean(given.pop("large", False), f"{name}: large")
    build = SINGLE[name]
    scenario = build(large=is_large)
    hints = typing.get_type_hints(_kind(build))
    fit_hints = typing.get_type_hints(Fit)
    fit: dict[str, typing.Any] = {}
    changes: dict[str, typing.Any] = {}
    for key, value in given.items():
        place = f"{name}: {key}"
        if key in FIT_FIELDS:
            fit[key] = _converted(value, fit_hints[key], place)
        elif key in hints and key not in NOT_PARAMETERS:
            changes[key] = _converted(value, hints[key], place)
        else:
            raise ValueError(
                f"{name} has no parameter {key!r}; it has {', '.join(parameters_of(name))}"
            )
    try:
        return replace(scenario, fit=Fit(**fit), **changes)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _mixed(given: dict[str, object]) -> Scenario:
    """Parts are `name: weight` or `name: {weight: …, other parameters}`; what stands beside
    `parts` is for all of them."""
    unknown = given.keys() - set(parameters_of("mixed"))
    if unknown:
        raise ValueError(
            f"mixed has no parameter {sorted(unknown)[0]!r}; it has"
            f" {', '.join(parameters_of('mixed'))}"
        )
    default = {part.name: 1.0 for part in mixed().parts}
    parts = _mapping(given.pop("parts", default), "mixed: parts")
    made, weights = [], []
    for name, value in parts.items():
        own = dict(value) if isinstance(value, Mapping) else {"weight": value}
        weights.append(_number(own.pop("weight", 1.0), f"mixed: weight of {name}"))
        if name not in SINGLE:
            raise ValueError(f"mixed: no part is called {name!r}; known: {', '.join(SINGLE)}")
        made.append(_single(name, {**given, **own}))
    return MixedScenario(parts=tuple(made), weights=tuple(weights))


def _converted(value: object, kind: object, place: str) -> object:
    """A parameter as its field wants it."""
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    if kind not in _CONVERTERS:
        raise ValueError(f"{place} cannot be set")
    return _CONVERTERS[kind](value, place)


def _mapping(value: object, place: str) -> Parameters:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{place} must be an object, got {value!r}")
    return value


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{place} must be a number, got {value!r}")
    return float(value)


def _whole(value: object, place: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{place} must be a whole number, got {value!r}")
    return value


def _boolean(value: object, place: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{place} must be true or false, got {value!r}")
    return value


def _lengths(value: object, place: str) -> Lengths:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"{place} must be a length such as 128, got {value!r}")
    try:
        return parse_lengths(str(value))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _pair(value: object, place: str) -> LengthPair:
    if isinstance(value, str):
        try:
            return load_fitted(value)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    if not isinstance(value, Mapping) or value.keys() != {"prompt", "output"}:
        raise ValueError(
            f"{place} must be an object with prompt and output, or one of {', '.join(FITTED)};"
            f" got {value!r}"
        )
    return IndependentPair(
        prompt=_lengths(value["prompt"], f"{place}.prompt"),
        output=_lengths(value["output"], f"{place}.output"),
    )


def _durations(value: object, place: str) -> Durations:
    if not isinstance(value, Mapping):
        return _built(Durations, {"median_s": value}, place)
    return _built(Durations, value, place)


def make_readers(value: object, place: str = "readers") -> ReaderPopulation:
    """A population from a preset's name or an object of its fields.

    Raises:
        ValueError: it is neither, or a field is out of range.
    """
    given = {"preset": value} if isinstance(value, str) else dict(_mapping(value, place))
    preset = given.pop("preset", "default")
    if not isinstance(preset, str) or preset not in READERS:
        raise ValueError(f"{place}: no preset is called {preset!r}; known: {', '.join(READERS)}")
    changes = _changes(ReaderPopulation, given, place)
    try:
        return replace(READERS[preset], **changes)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _slo(value: object, place: str) -> SloClass:
    if isinstance(value, str):
        try:
            return slo_class(value)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return _built(SloClass, {"name": "own", **_mapping(value, place)}, place)


def _table(value: object, place: str) -> QuantileTable:
    share = _number(value, place)
    return QuantileTable(quantiles=(0.0, 1.0), values=(share, share))


T = typing.TypeVar("T")


def _built(kind: Callable[..., T], given: Parameters, place: str) -> T:
    """A dataclass from an object of its fields."""
    try:
        return kind(**_changes(kind, given, place))
    except (TypeError, ValueError) as error:  # TypeError: a field is missing
        raise ValueError(f"{place}: {error}") from error


def _changes(kind: object, given: Parameters, place: str) -> dict[str, typing.Any]:
    hints = typing.get_type_hints(kind)
    unknown = given.keys() - hints.keys()
    if unknown:
        raise ValueError(
            f"{place} has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(hints))}"
        )
    return {key: _converted(value, hints[key], f"{place}.{key}") for key, value in given.items()}


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{place} must be a text, got {value!r}")
    return value


_CONVERTERS: Mapping[object, Callable[[object, str], object]] = {
    float: _number,
    int: _whole,
    bool: _boolean,
    str: _text,
    Lengths: _lengths,
    LengthPair: _pair,
    ReaderPopulation: make_readers,
    Durations: _durations,
    SloClass: _slo,
    QuantileTable: _table,
}
