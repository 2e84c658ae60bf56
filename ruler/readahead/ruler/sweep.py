"""Runs of one system at several rates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath

from readahead.core.reading.metrics.capacity import capacity
from readahead.ruler.scoring import RunScore


def sweeps(runs: Sequence[RunScore]) -> dict[str, list[RunScore]]:
    """Runs that differ in their rate, by the name they share once numbers are taken out."""
    groups: dict[str, list[tuple[float, RunScore]]] = defaultdict(list)
    for found in runs:
        rate = found.run.offered_req_s()
        if rate is not None:
            groups[_sweep_name(found)].append((rate, found))
    return {
        name: [found for _, found in sorted(group, key=lambda pair: pair[0])]
        for name, group in groups.items()
        if len({rate for rate, _ in group}) > 1
    }


def capacities(groups: Mapping[str, Sequence[RunScore]]) -> dict[str, float | None]:
    """The capacity of each sweep."""
    return {
        name: capacity(
            (one.run.offered_req_s() or 0.0, one.score.slo_attainment or 0.0) for one in found
        )
        for name, found in groups.items()
    }


def _sweep_name(found: RunScore) -> str:
    name = re.sub(r"\d+(\.\d+)?", "", PurePath(found.run.file).stem).strip("-_. ")
    return name or found.run.format
