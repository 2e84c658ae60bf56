"""What the capacity experiment was to show, line by line, and whether it does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    SCENARIOS,
)
from readahead.sim.experiments.capacity_found import Capacities
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_rivals import (
    CLASSIC,
    OURS,
    PLANNER,
    YARDSTICK,
    rivals,
)
from readahead.sim.experiments.capacity_search import CALM, OVERLOAD
from readahead.sim.experiments.experiment import Claim, Verdict
from readahead.sim.experiments.intervals import Mean

ONE = "7B-1-A100"
"""The cluster of one worker, beside which that of four stands."""
FOUR = "7B-A100"
HARM_MIN, CALM_MIN, IDLE_MOST = 0.97, 0.99, 2.0
FCFS = "vllm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A ratio that is aimed at in one scenario, under each promise."""

    scenario: str
    over: Sequence[str]
    words: str
    least: Mapping[Kind, float]


def _least(reading: float, staged: float) -> dict[Kind, float]:
    return {Kind.READING: reading, Kind.STAGED: staged}


def _targets(
    over: Sequence[str], words: str, least: Mapping[str, tuple[float, float]]
) -> list[Target]:
    return [
        Target(scenario=scenario, over=over, words=words, least=_least(*both))
        for scenario, both in least.items()
    ]


TARGETS = (
    *_targets(
        CLASSIC,
        "the best of vLLM, Sarathi, DistServe",
        {
            "chat": (1.25, 1.2),
            "code": (1.5, 1.7),
            "mixed": (2.0, 2.0),
            "mixed-thinking": (2.0, 2.0),
            "reasoning": (1.15, 1.2),
        },
    ),
    *_targets(
        (PLANNER,),
        "SLOs-Serve",
        {
            "chat": (1.05, 1.1),
            "code": (1.15, 1.2),
            "mixed": (1.4, 1.5),
            "mixed-thinking": (1.4, 1.5),
            "reasoning": (1.7, 1.5),
        },
    ),
)
"""Reasoning is in steady windows, so that its goal is the sustained one."""
GEO_MEANS = (
    (CLASSIC, "the best of vLLM, Sarathi, DistServe", 1.6),
    (("tokenflow",), "TokenFlow", 1.2),
    (("andes",), "Andes", 1.2),
)
PAPER = (("code", "bursty coding", 2.1), ("reasoning", "reasoning", 2.4))
KIND_WORDS = {Kind.READING: "reading SLO", Kind.STAGED: "SLOs of the scenarios"}


def claims(found: Capacities) -> list[Claim]:
    """All lines."""
    return [
        *(_target(found, target) for target in TARGETS),
        *(_geo_mean(found, over, words, least) for over, words, least in GEO_MEANS),
        _harm(found),
        _calm(found),
        _idle(found),
        _paper_geo_mean(found),
        *(_paper(found, *line) for line in PAPER),
        _replicas(found),
        _not_run("Each mechanism of SLOs-Serve alone", "1.66x, 1.34x, 1.19x [S,D]", _ABLATIONS),
        _not_run("Disaggregated with elastic roles within 3 % of colocated", "-", _ROLES),
    ]


_ABLATIONS = "speculation, burst tier and routing are not switched one by one here"
_ROLES = "roles are static here; the experiment `roles` has them"


def _not_run(finding: str, paper: str, why: str) -> Claim:
    return Claim(finding=finding, paper=paper, ours="-", verdict=Verdict.NOT_RUN, why=why)


def _verdict(met: Sequence[bool]) -> Verdict:
    if not met:
        return Verdict.NOT_RUN
    if all(met):
        return Verdict.REPRODUCED
    return Verdict.PARTLY if any(met) else Verdict.NOT


def _told(shown: Sequence[str], met: Sequence[bool]) -> tuple[str, str]:
    """What is shown, and how often it was enough."""
    why = f"reached {sum(met)} of {len(met)} times" if met else ""
    return "; ".join(shown) or "-", why


def _without(found: Capacities, cell: tuple[str, str], over: Sequence[str]) -> str:
    """Which of the others were not run, though they can be: over those left, nothing is reached."""
    there = found.policies(*cell)
    missing = [one for one in over if one in rivals(MACHINES[cell[0]]) and one not in there]
    return f"; without {', '.join(missing)}" if missing else ""


def _target(found: Capacities, target: Target) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        parts = []
        for kind, least in target.least.items():
            one = found.ratio((machine, target.scenario), OURS, target.over, kind)
            if one is None or not one.value.count:
                continue
            without = _without(found, (machine, target.scenario), target.over)
            is_reached = one.value.value >= least
            if not (without and is_reached):
                met.append(is_reached)
            parts.append(f"{_times(one.value)} ({one.rival}{without})")
        if parts:
            shown.append(f"{machine}: {' / '.join(parts)}")
    ours, why = _told(shown, met)
    reading, staged = (target.least[kind] for kind in Kind)
    return Claim(
        finding=f"{SCENARIOS[target.scenario].words}: `{OURS}` over {target.words} "
        f"≥ {reading:g} by reading SLO / {staged:g} by the scenario's",
        paper="-",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _geo_mean(found: Capacities, over: Sequence[str], words: str, least: float) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        parts = []
        for kind in Kind:
            value = found.geo_mean(machine, OURS, over, kind)
            if value is not None:
                met.append(value.value >= least)
                parts.append(_times(value))
        if parts:
            shown.append(f"{machine}: {' / '.join(parts)}")
    ours, why = _told(shown, met)
    return Claim(
        finding=f"Geo-mean of the six scenarios: `{OURS}` over {words} ≥ {least:g}, "
        "without speculation",
        paper="-",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _harm(found: Capacities) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        for scenario in found.scenarios(machine):
            for kind in Kind:
                one = found.ratio((machine, scenario), OURS, (YARDSTICK,), kind)
                if one is None or not one.value.count:
                    continue
                met.append(one.value.value >= HARM_MIN)
                if not met[-1]:
                    words = f"{machine}, {SCENARIOS[scenario].words}, {KIND_WORDS[kind]}"
                    shown.append(f"{words}: {_times(one.value)}")
    ours = f"in {sum(met)} of {len(met)} cells" + (f"; not {'; '.join(shown)}" if shown else "")
    return Claim(
        finding=f"Harm guard: nowhere below {HARM_MIN:g} of plain slack batching",
        paper="-",
        ours=ours if met else "-",
        verdict=_verdict(met),
    )


def _calm(found: Capacities) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        for scenario in found.scenarios(machine):
            values = found.at_level(CALM, (machine, scenario), "f1_tok_s")
            if OURS not in values:
                continue
            best = max(one.value for name, one in values.items() if name not in (OURS, YARDSTICK))
            share = values[OURS].value / best if best > 0 else float(values[OURS].value >= best)
            met.append(share >= CALM_MIN)
            shown.append(f"{machine}, {SCENARIOS[scenario].words} {share:.3f}")
    ours, why = _told(shown, met)
    return Claim(
        finding="Calm load: smooth goodput (F1) within 1 % of the best rival's",
        paper="-",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _idle(found: Capacities) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        for scenario in found.scenarios(machine):
            values = found.at_level(OVERLOAD, (machine, scenario), "idle_p99_s")
            if OURS not in values or FCFS not in values:
                continue
            ours, theirs = values[OURS], values[FCFS]
            met.append(ours.value <= IDLE_MOST * theirs.value)
            words = f"{machine}, {SCENARIOS[scenario].words}"
            shown.append(f"{words} {ours.text(2)} s for {theirs.text(2)} s")
    told, why = _told(shown, met)
    return Claim(
        finding=f"Overload: p99 idle time ≤ {IDLE_MOST:g}x that of first come, first served "
        f"(`{FCFS}`)",
        paper="-",
        ours=told,
        verdict=_verdict(met),
        why=why,
    )


def _paper_geo_mean(found: Capacities) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        value = found.geo_mean(machine, PLANNER, CLASSIC, Kind.STAGED)
        if value is not None:
            met.append(value.low > 1)
            shown.append(f"{machine}: {_times(value)}")
    ours, why = _told(shown, met)
    return Claim(
        finding="SLOs-Serve over the best of vLLM, Sarathi, DistServe, geo-mean of six scenarios: "
        "more than 1",
        paper="2.2x, with speculation [P]",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _paper(found: Capacities, scenario: str, words: str, times: float) -> Claim:
    shown, met = [], []
    for machine in found.machines:
        one = found.ratio((machine, scenario), PLANNER, CLASSIC, Kind.STAGED)
        if one is not None and one.value.count:
            met.append(one.value.low > 1)
            shown.append(f"{machine}: {_times(one.value)} ({one.rival})")
    ours, why = _told(shown, met)
    return Claim(
        finding=f"SLOs-Serve over the best of vLLM, Sarathi, DistServe, {words}: more than 1",
        paper=f"{times:g}x [S]",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _replicas(found: Capacities) -> Claim:
    shown, met = [], []
    for policy in (PLANNER, OURS):
        four = found.mean(FOUR, "tools", policy, Kind.STAGED)
        one = found.mean(ONE, "tools", policy, Kind.STAGED)
        if four.count and one.count and one.value:
            met.append(four.value / one.value > MACHINES[FOUR].workers)
            shown.append(f"`{policy}` {four.value / one.value:.2f}x")
    ours, why = _told(shown, met)
    return Claim(
        finding="Tool calling in bursts: four replicas carry more than four times as much as one",
        paper="up to 6.2x [S,D]",
        ours=ours,
        verdict=_verdict(met),
        why=why,
    )


def _times(value: Mean) -> str:
    return f"{value.text()}x"


def absent(found: Capacities) -> list[str]:
    """What the full scope has and these rows have not."""
    lines = []
    for name, about in MACHINES.items():
        if name not in found.machines:
            lines.append(about.words)
            continue
        scenarios = about.scenarios or tuple(SCENARIOS)
        there = found.scenarios(name)
        without = [SCENARIOS[one].words for one in scenarios if one not in there]
        without += [
            f"`{policy}` in {SCENARIOS[one].words}"
            for one in there
            for policy in rivals(about)
            if policy not in found.policies(name, one)
        ]
        if without:
            lines.append(f"{about.words}: {', '.join(without)}")
    return lines
