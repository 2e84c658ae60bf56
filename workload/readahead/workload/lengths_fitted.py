"""Length distributions of public traces, as fitted; origin and licence are beside each.

`tools/fit_lengths.py` makes the files from the traces, which are not part of the project.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from readahead.workload.lengths import IntArray, QuantileLength, QuantileTable
from readahead.workload.lengths_joint import CopulaPair, GridPair

FITTED = (
    "arxiv-summarization",
    "azure2023-code",
    "azure2023-conv",
    "azure2024-code",
    "azure2024-conv",
    "deepseek-r1",
    "mooncake-conversation",
    "sharegpt",
)
"""What is shipped, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalFacts:
    """What is known of a trace's arrivals; None where it is not."""

    rate_req_s: float
    gap_cv: float | None = None
    """Coefficient of variation of the gaps; 1 for Poisson."""
    dispersion_1s: float | None = None
    """Variance over mean of the arrivals in a second; 1 for Poisson."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedLengths:
    """One fitted distribution; a `LengthPair`."""

    name: str
    origin: str
    commit: str
    licence: str
    rows: int
    tokenizer: str
    method: str
    pair: CopulaPair | GridPair
    thinking_share: QuantileTable | None
    """Share of the output that is thinking, 0..1; None: the model does not think."""
    arrivals: ArrivalFacts | None
    """None: a set of texts, with no arrivals."""

    def draw(self, rng: random.Random) -> tuple[int, int]:
        """Prompt tokens and output tokens."""
        return self.pair.draw(rng)

    def draw_many(self, rng: np.random.Generator, count: int) -> tuple[IntArray, IntArray]:
        """Many of them."""
        return self.pair.draw_many(rng, count)


@cache
def load_fitted(name: str) -> FittedLengths:
    """A shipped distribution.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in FITTED:
        raise ValueError(f"no fitted lengths are called {name!r}; known: {', '.join(FITTED)}")
    text = files("readahead.workload").joinpath(f"fitted/{name}.json").read_text("utf-8")
    return fitted_from(json.loads(text))


def fitted_from(record: Mapping[str, object]) -> FittedLengths:
    """A distribution from the content of its file.

    Raises:
        ValueError: the record lacks something, or a table is not one.
    """
    arrivals = record.get("arrivals")
    share = record.get("thinking_share")
    try:
        return FittedLengths(
            name=str(record["name"]),
            origin=str(record["origin"]),
            commit=str(record["commit"]),
            licence=str(record["licence"]),
            rows=_whole(record["rows"]),
            tokenizer=str(record["tokenizer"]),
            method=str(record["method"]),
            pair=_pair(record),
            thinking_share=None if share is None else _table(share),
            arrivals=None if arrivals is None else _facts(arrivals),
        )
    except KeyError as error:
        raise ValueError(f"fitted lengths need {error.args[0]!r}") from error


def _pair(record: Mapping[str, object]) -> CopulaPair | GridPair:
    prompt = QuantileLength(table=_table(record["prompt_tokens"]))
    output = QuantileLength(table=_table(record["output_tokens"]))
    grid = record.get("grid")
    if grid is None:
        correlation = _number(record["rank_correlation"])
        return CopulaPair(prompt=prompt, output=output, rank_correlation=correlation)
    fields = _mapping(grid)
    shares = fields["shares"]
    if not isinstance(shares, list):
        raise ValueError(f"expected rows of shares, got {shares!r}")
    return GridPair(
        prompt=prompt,
        output=output,
        edges=_numbers(fields["edges"]),
        shares=tuple(_numbers(row) for row in shares),
    )


def _table(value: object) -> QuantileTable:
    fields = _mapping(value)
    return QuantileTable(
        quantiles=_numbers(fields["quantiles"]),
        values=_numbers(fields["values"]),
    )


def _facts(value: object) -> ArrivalFacts:
    fields = _mapping(value)
    cv, dispersion = fields.get("gap_cv"), fields.get("dispersion_1s")
    return ArrivalFacts(
        rate_req_s=_number(fields["rate_req_s"]),
        gap_cv=None if cv is None else _number(cv),
        dispersion_1s=None if dispersion is None else _number(dispersion),
        note=str(fields.get("note", "")),
    )


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {value!r}")
    return value


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of numbers, got {value!r}")
    return tuple(_number(one) for one in value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return float(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {value!r}")
    return value
