"""What of a policy can be tuned, and within which range."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_METADATA = "knob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One number, or switch, of a policy."""

    name: str
    default: float
    least: float
    most: float
    meaning: str
    is_whole: bool
    is_switch: bool


def knob(default: float, *, least: float, most: float, meaning: str) -> Any:
    """A dataclass field that experiments may tune; `least` and `most` are allowed."""
    return dataclasses.field(
        default=default, metadata={_METADATA: (float(least), float(most), meaning)}
    )


def switch(default: bool, *, meaning: str) -> Any:
    """A dataclass field that turns a mechanism on or off."""
    return knob(default, least=0, most=1, meaning=meaning)


def knobs_of(policy: type[DataclassInstance] | DataclassInstance) -> tuple[Knob, ...]:
    """All knobs of a policy, in order of declaration."""
    found = []
    for field in dataclasses.fields(policy):
        if _METADATA not in field.metadata:
            continue
        least, most, meaning = field.metadata[_METADATA]
        found.append(
            Knob(
                name=field.name,
                default=field.default,  # type: ignore[arg-type]
                least=least,
                most=most,
                meaning=meaning,
                is_whole=isinstance(field.default, int),
                is_switch=isinstance(field.default, bool),
            )
        )
    return tuple(found)


def settled(each: Knob, value: float) -> float:
    """The value in its knob's kind, where it has come as a plain number, as from a config file:
    256.0 for an integer, 1.0 for true. What does not fit stays, for `check_knobs` to name."""
    if each.is_switch and value in (0, 1):
        return bool(value)
    if each.is_whole and not isinstance(value, bool) and float(value).is_integer():
        return int(value)
    return value


def check_knobs(policy: DataclassInstance) -> None:
    """Checks each knob against its range.

    Raises:
        ValueError: names the knob, its value and its range.
    """
    for each in knobs_of(policy):
        value = getattr(policy, each.name)
        is_right = isinstance(value, bool) if each.is_switch else not isinstance(value, bool)
        if each.is_whole and not isinstance(value, int):
            is_right = False
        if not is_right or not isinstance(value, int | float) or math.isnan(value):
            kind = (
                "true or false" if each.is_switch else "an integer" if each.is_whole else "a number"
            )
            raise ValueError(f"{each.name} must be {kind}, is {value!r}")
        if not each.least <= value <= each.most:
            raise ValueError(
                f"{each.name} must be from {each.least:g} to {each.most:g}, is {value!r}"
            )
