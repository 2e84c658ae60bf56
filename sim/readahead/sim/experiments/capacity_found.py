"""Capacities and their ratios, from the rows of the search alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from readahead.sim.experiments.capacity_cells import MACHINES, SCENARIOS, SIX
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_search import FOUND, SHARE_MIN
from readahead.sim.experiments.experiment import Row
from readahead.sim.experiments.intervals import Mean, mean, number, where

Key = tuple[str, str, str, Kind, float]
"""Cluster, scenario, policy, promise, attainment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A policy's capacity over that of the best of some others."""

    rival: str
    value: Mean
    """Seed by seed; of no value where the others have no capacity at all."""


@dataclass(slots=True)
class Capacities:
    """All of them."""

    rows: Sequence[Row]
    arms: dict[tuple[str, str, str, Kind], str] = field(default_factory=dict)
    """The knobs that were taken."""
    _by_seed: dict[Key, dict[int, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in where(self.rows, part=FOUND):
            about = (str(row["machine"]), str(row["scenario"]), str(row["policy"]))
            kind = Kind(str(row["kind"]))
            self.arms[*about, kind] = str(row["arm"])
            by_seed = self._by_seed.setdefault((*about, kind, number(row, "share_min")), {})
            by_seed[int(number(row, "seed"))] = number(row, "capacity_req_s")

    @property
    def machines(self) -> list[str]:
        """Those that were run."""
        there = {key[0] for key in self._by_seed}
        return [name for name in MACHINES if name in there]

    def scenarios(self, machine: str) -> list[str]:
        """Those that were run on a cluster."""
        there = {key[1] for key in self._by_seed if key[0] == machine}
        return [name for name in SCENARIOS if name in there]

    def policies(self, machine: str, scenario: str | None = None) -> list[str]:
        """Those that were run there, in the order of the rows."""
        every = (key for key in self._by_seed if key[0] == machine)
        return list(dict.fromkeys(key[2] for key in every if scenario in (None, key[1])))

    def mean(
        self, machine: str, scenario: str, policy: str, kind: Kind, share_min: float = SHARE_MIN
    ) -> Mean:
        """Sessions a second."""
        found = self._by_seed.get((machine, scenario, policy, kind, share_min), {})
        return mean(found.values())

    def best(
        self,
        machine: str,
        scenario: str,
        policies: Iterable[str],
        kind: Kind,
        share_min: float = SHARE_MIN,
    ) -> str | None:
        """The policy of these with the greatest capacity; None where none was run."""
        there = [one for one in policies if one in self.policies(machine, scenario)]
        if not there:
            return None
        return max(there, key=lambda one: self.mean(machine, scenario, one, kind, share_min).value)

    def ratio(
        self,
        cell: tuple[str, str],
        policy: str,
        over: Iterable[str],
        kind: Kind,
        share_min: float = SHARE_MIN,
    ) -> Ratio | None:
        """Over the best of others, from the same arrivals; None where one of both was not run."""
        machine, scenario = cell
        rival = self.best(machine, scenario, over, kind, share_min)
        ours = self._by_seed.get((machine, scenario, policy, kind, share_min))
        if rival is None or ours is None:
            return None
        theirs = self._by_seed[machine, scenario, rival, kind, share_min]
        ratios = [ours[seed] / theirs[seed] for seed in ours if theirs.get(seed)]
        return Ratio(rival=rival, value=mean(ratios))

    def geo_mean(
        self, machine: str, policy: str, over: Sequence[str], kind: Kind, *, least: int = len(SIX)
    ) -> Mean | None:
        """Of the ratios of the six scenarios, seed by seed; None where fewer were run, or somebody
        has no capacity at all."""
        logs: dict[int, list[float]] = {}
        for scenario in SIX:
            rival = self.best(machine, scenario, over, kind)
            if rival is None:
                continue
            ours = self._by_seed.get((machine, scenario, policy, kind, SHARE_MIN), {})
            theirs = self._by_seed[machine, scenario, rival, kind, SHARE_MIN]
            for seed, value in ours.items():
                if value and theirs.get(seed):
                    logs.setdefault(seed, []).append(math.log(value / theirs[seed]))
        whole = [each for each in logs.values() if len(each) >= least]
        return mean(math.exp(math.fsum(each) / len(each)) for each in whole) if whole else None

    def at_level(self, level: str, cell: tuple[str, str], name: str) -> dict[str, Mean]:
        """A number of each policy under the same load."""
        machine, scenario = cell
        found: dict[str, list[float]] = {}
        for row in where(self.rows, part=level, machine=machine, scenario=scenario):
            if row.get(name) is not None:
                found.setdefault(str(row["policy"]), []).append(number(row, name))
        return {policy: mean(values) for policy, values in found.items()}
