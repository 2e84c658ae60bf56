"""Profiles as text, and those that ship with the project."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from importlib import resources
from typing import Any

from readahead.core.latency.iteration import Curve, LatencyModel, LatencyPlane
from readahead.core.latency.profile import FitQuality, KindFit, Link, Profile

_FOLDER = "profiles"


def to_text(profile: Profile) -> str:
    """The profile as JSON, one that `from_text` reads back the same."""
    return json.dumps(asdict(profile), indent=1, ensure_ascii=False) + "\n"


def from_text(text: str, *, where: str) -> Profile:
    """The profile that JSON text holds; `where` names it in errors.

    Raises:
        ValueError: it is not JSON, lacks a field, has one too many, or a value is out of bounds.
    """
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}:{error.lineno}: not JSON: {error.msg}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: a profile is a JSON object")
    try:
        latency = dict(fields.pop("latency"))
        links = tuple(Link(**link) for link in fields.pop("links"))
        planes = tuple(LatencyPlane(**plane) for plane in latency.pop("planes"))
        latency |= {name: _curve(latency.get(name)) for name in ("tile_s", "kv_weight")}
        return Profile(
            **fields | {"fit": _fit(fields.pop("fit"))},
            latency=LatencyModel(planes=planes, **latency),
            links=links,
        )
    except KeyError as error:
        raise ValueError(f"{where}: no field {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a profile: {error}") from error


@cache
def profiles() -> Mapping[str, Profile]:
    """Those that ship with the project, by name, in order of names."""
    folder = resources.files("readahead.core.latency") / _FOLDER
    texts = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    }
    found = (from_text(texts[name], where=name) for name in sorted(texts))
    return {profile.name: profile for profile in found}


def profile(name: str) -> Profile:
    """The profile of that name.

    Raises:
        ValueError: none has it; names those that there are.
    """
    known = profiles()
    if name not in known:
        raise ValueError(f"no profile {name!r}; there are {', '.join(known)}")
    return known[name]


def _curve(fields: Mapping[str, Any] | None) -> Curve | None:
    if fields is None:
        return None
    return Curve(**{name: tuple(values) for name, values in fields.items()})


def _fit(fields: Mapping[str, object] | None) -> FitQuality | None:
    if fields is None:
        return None
    kinds = fields["kinds"]
    if not isinstance(kinds, list):
        raise ValueError("fit.kinds must be a list")
    rest = {name: value for name, value in fields.items() if name != "kinds"}
    return FitQuality(**rest, kinds=tuple(KindFit(**kind) for kind in kinds))  # type: ignore[arg-type]
