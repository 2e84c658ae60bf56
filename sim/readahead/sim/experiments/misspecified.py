"""How much a policy still carries when what it believes is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from readahead.sim.experiments.capacity_cells import MACHINES, SCENARIOS
from readahead.sim.experiments.experiment import Cell, Claim, Findings, Row, Scope, Table, Verdict
from readahead.sim.experiments.intervals import Mean, distinct, mean, number
from readahead.sim.experiments.misspecified_cells import (
    BASE,
    CASES,
    MACHINE,
    POLICIES,
    SIZES,
    cells,
    run_cell,
)

OURS = "readahead"
FULL = SIZES[Scope.FULL]
LEAST_KEPT = {
    "times +10 %": 0.85,
    "times heavy-tailed": 0.9,
    "pace believed 50 % high": 0.9,
    "pace believed 50 % low": 0.9,
}
"""Of the capacity as believed. Times that are 10 % longer take some 10 % from anybody."""


@dataclass(slots=True)
class Carried:
    """Capacities by workload, policy and case, over seeds."""

    rows: Sequence[Row]
    _by_seed: dict[tuple[str, str, str], dict[object, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.rows:
            key = (str(row["scenario"]), str(row["policy"]), str(row["case"]))
            self._by_seed.setdefault(key, {})[row["seed"]] = number(row, "capacity_req_s")

    @property
    def scenarios(self) -> list[str]:
        """Those that were run."""
        return [str(one) for one in distinct(self.rows, "scenario")]

    @property
    def policies(self) -> list[str]:
        """Those that were run."""
        return [str(one) for one in distinct(self.rows, "policy")]

    @property
    def cases(self) -> list[str]:
        """Those that were run."""
        return [str(one) for one in distinct(self.rows, "case")]

    def mean(self, scenario: str, policy: str, case: str) -> Mean:
        """Sessions a second."""
        return mean(self._by_seed.get((scenario, policy, case), {}).values())

    def kept(self, scenario: str, policy: str, case: str) -> Mean:
        """Over the same policy's where all is as believed, seed by seed."""
        return self._ratio((scenario, policy, case), (scenario, policy, BASE))

    def ahead(self, scenario: str, case: str) -> tuple[str, Mean] | None:
        """Of ours over the best other's; None where there is no other."""
        others = [one for one in self.policies if one != OURS]
        if not others or OURS not in self.policies:
            return None
        best = max(others, key=lambda one: self.mean(scenario, one, case).value)
        return best, self._ratio((scenario, OURS, case), (scenario, best, case))

    def _ratio(self, ours: tuple[str, str, str], theirs: tuple[str, str, str]) -> Mean:
        over = self._by_seed.get(theirs, {})
        own = self._by_seed.get(ours, {})
        return mean(value / over[seed] for seed, value in own.items() if over.get(seed))


def claims(found: Carried) -> list[Claim]:
    """All lines."""
    return [
        _ahead(found),
        *(_robust(found, case, least) for case, least in LEAST_KEPT.items()),
        _lengths(found),
    ]


def _verdict(met: Sequence[bool]) -> Verdict:
    if not met:
        return Verdict.NOT_RUN
    return (Verdict.NOT, Verdict.PARTLY, Verdict.REPRODUCED)[any(met) + all(met)]


def _ahead(found: Carried) -> Claim:
    shown, met = [], []
    for scenario in found.scenarios:
        for case in found.cases:
            one = found.ahead(scenario, case)
            if one is None or not one[1].count:
                continue
            met.append(one[1].value >= 1)
            if not met[-1]:
                words = f"{SCENARIOS[scenario].words}, {case}"
                shown.append(f"{words}: {one[1].text()} of `{one[0]}`")
    ours = f"in {sum(met)} of {len(met)}" + (f"; not {'; '.join(shown)}" if shown else "")
    return Claim(
        finding=f"`{OURS}` carries no less than the best other, whatever is believed wrongly",
        paper="-",
        ours=ours if met else "-",
        verdict=_verdict(met),
    )


def _robust(found: Carried, case: str, least: float) -> Claim:
    shown, met = [], []
    for scenario in found.scenarios:
        kept = {policy: found.kept(scenario, policy, case) for policy in found.policies}
        if not kept.get(OURS, mean([])).count:
            continue
        met.append(kept[OURS].value >= least)
        others = ", ".join(f"{name} {one.text()}" for name, one in kept.items() if name != OURS)
        shown.append(f"{SCENARIOS[scenario].words}: {kept[OURS].text()} ({others})")
    return Claim(
        finding=f"`{OURS}` keeps at least {least:.0%} of its capacity with {case}",
        paper="-",
        ours="; ".join(shown) or "-",
        verdict=_verdict(met),
    )


def _lengths(found: Carried) -> Claim:
    """Nothing in it goes by lengths but where requests are placed."""
    case, shown, met = "lengths known", [], []
    for scenario in found.scenarios:
        kept = found.kept(scenario, OURS, case)
        if kept.count:
            met.append(kept.value <= 1.03)
            theirs = found.kept(scenario, "slos-serve", case)
            shown.append(f"{SCENARIOS[scenario].words}: {kept.text()} (slos-serve {theirs.text()})")
    return Claim(
        finding=f"`{OURS}` carries at most 3 % more where answers' lengths are known",
        paper="SLOs-Serve assumes that they are [P]",
        ours="; ".join(shown) or "-",
        verdict=_verdict(met),
    )


def tables(found: Carried) -> list[Table]:
    """Capacities, and what is kept of them."""
    absolute, kept = [], []
    for scenario in found.scenarios:
        words = SCENARIOS[scenario].words
        for policy in found.policies:
            every = [found.mean(scenario, policy, case).text() for case in found.cases]
            absolute.append((words, f"`{policy}`", *every))
            every = [found.kept(scenario, policy, case).text() for case in found.cases[1:]]
            kept.append((words, f"`{policy}`", *every))
    return [
        Table(
            title="Capacity, sessions/s",
            columns=("workload", "policy", *found.cases),
            rows=absolute,
        ),
        Table(
            title="Of the capacity as believed",
            columns=("workload", "policy", *found.cases[1:]),
            rows=kept,
            note="Seed by seed, from the same sessions.",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Misspecified:
    """Capacities with beliefs that do not hold."""

    name: str = "misspecified"
    title: str = "When what the planner believes is wrong"
    asked: str = (
        "How much less does a policy carry when iterations take longer or vary, when readers read "
        "at another pace than it believes, when it does not know how long answers become, or when "
        "KV memory is short?"
    )
    set_up: Sequence[str] = (
        f"{MACHINES[MACHINE].words}, colocated; workloads and judging are those of `capacity`: "
        + ", ".join(SCENARIOS[one].words for one in FULL.scenarios)
        + f", windows {FULL.share:.0%} as long. Capacity: the highest rate at which 90 % attain "
        f"the reading SLO, by bisection over rates {FULL.step - 1:.0%} apart.",
        "The engines' schedulers go by the profile's iteration times; the world takes 10 % more "
        "or less, or multiplies each by a lognormal factor of mean 1 and "
        f"sigma {CASES['times heavy-tailed'].noise_sigma:g}: one iteration in a hundred takes "
        "four times as long as the median one.",
        "Readers read 5 tokens a second and are judged so; in two cases 10 or 20, which the "
        "policy is told; in two it is told 7.5 or 2.5 where 5 is true.",
        "Nobody knows how long an answer becomes, except where it says so; `slos-serve` then "
        "reserves memory by it.",
        "Policies with one setting each, tuned for none of the cases: "
        + ", ".join(
            f"`{name}`" + "".join(f", {knob} {value:g}" for knob, value in arm.knobs.items())
            for name, arm in POLICIES.items()
        )
        + ".",
    )
    profiles: Sequence[str] = (MACHINES[MACHINE].profile,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """One for each workload, policy and seed."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """A capacity for each case."""
        return run_cell(cell)

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Who carries how much of what he carried."""
        found = Carried(rows)
        return Findings(
            claims=claims(found),
            tables=tables(found),
            notes=(
                "The router is told the same as the engines: it places by committed memory alone.",
                "The case of another pace changes what is asked of the policies, not only what "
                "they believe; its capacities are compared across policies, not with the first.",
            ),
        )


EXPERIMENT = Misspecified()
