"""All kinds of arrivals, as a workload file and a command line name them."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import Annotated

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from readahead.workload.arrivals import (
    BurstArrivals,
    ClosedLoop,
    GammaArrivals,
    PoissonArrivals,
    WeibullArrivals,
    require_rate,
)
from readahead.workload.arrivals_rates import (
    CurveArrivals,
    MarkovArrivals,
    RampArrivals,
    StepArrivals,
)
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.spec_problems import first_problem

Generated = (
    PoissonArrivals
    | GammaArrivals
    | WeibullArrivals
    | BurstArrivals
    | RampArrivals
    | StepArrivals
    | CurveArrivals
    | MarkovArrivals
)
"""Kinds that a seed alone makes."""

_TYPES: tuple[type[Generated | TraceArrivals | ClosedLoop], ...] = (
    PoissonArrivals,
    GammaArrivals,
    WeibullArrivals,
    BurstArrivals,
    RampArrivals,
    StepArrivals,
    CurveArrivals,
    MarkovArrivals,
    TraceArrivals,
    ClosedLoop,
)
KINDS = {
    str(field.default): one
    for one in _TYPES
    for field in dataclasses.fields(one)
    if field.name == "kind"
}
"""Class of each kind."""
UNITS = ("_req_s", "_s")
"""What a short form leaves away."""


def _from_text(given: object) -> object:
    """Fields of a short form; anything else as it is."""
    if not isinstance(given, str):
        return given
    kind, _, rest = given.partition(":")
    if kind not in KINDS:
        raise ValueError(f"no arrivals are called {kind!r}; known: {', '.join(KINDS)}")
    fields = {field.name: field for field in dataclasses.fields(KINDS[kind])}
    del fields["kind"]
    full = {short: name for name in fields for short in (name, _without_unit(name))}
    found: dict[str, object] = {"kind": kind}
    for part in filter(None, rest.split(",")):
        short, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or short not in full:
            wanted = ", ".join(f"{_without_unit(name)}=" for name in fields)
            raise ValueError(f"{kind} takes {wanted} and not {part.strip()!r}")
        is_list = str(fields[full[short]].type).startswith("tuple")
        found[full[short]] = value.split("/") if is_list else value
    return found


def _without_unit(name: str) -> str:
    for unit in UNITS:
        name = name.removesuffix(unit)
    return name


OpenArrivals = Annotated[
    Generated | TraceArrivals, Field(discriminator="kind"), BeforeValidator(_from_text)
]
"""Arrivals that do not wait for answers."""
AnyArrivals = Annotated[
    Generated | TraceArrivals | ClosedLoop,
    Field(discriminator="kind"),
    BeforeValidator(_from_text),
]


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Generated | TraceArrivals | ClosedLoop]:
    return TypeAdapter(AnyArrivals)


def parse_arrivals(text: str) -> Generated | TraceArrivals | ClosedLoop:
    """Reads `gamma:rate=4,cv=2`: a kind and its fields without units, lists as `1/2/4`.

    A path in it may have no comma.

    Raises:
        ValueError: it is not of this form, or a value is out of its range.
    """
    try:
        return _adapter().validate_python(text)
    except ValidationError as error:
        raise ValueError(f"arrivals {text!r}: {first_problem(error)}") from error


def at_rate(
    arrivals: Generated | TraceArrivals | ClosedLoop, rate_req_s: float
) -> Generated | TraceArrivals:
    """The same arrivals at another mean rate: the same pattern, stretched.

    Raises:
        ValueError: the rate is not positive and finite, or such arrivals have no one rate.
    """
    require_rate("rate_req_s", rate_req_s)
    match arrivals:
        case MarkovArrivals():
            factor = rate_req_s / arrivals.rate_req_s
            return dataclasses.replace(
                arrivals,
                rates_req_s=tuple(rate * factor for rate in arrivals.rates_req_s),
                dwells_s=tuple(dwell_s / factor for dwell_s in arrivals.dwells_s),
            )
        case (
            PoissonArrivals()
            | GammaArrivals()
            | WeibullArrivals()
            | BurstArrivals()
            | TraceArrivals()
        ):
            return dataclasses.replace(arrivals, rate_req_s=rate_req_s)
        case _:
            raise ValueError(f"arrivals of kind {arrivals.kind!r} have no one rate to set")
