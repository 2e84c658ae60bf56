"""Tables, picture and cost of the capacity experiment."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    SCENARIOS,
    SIZES,
)
from readahead.sim.experiments.capacity_claims import KIND_WORDS
from readahead.sim.experiments.capacity_found import Capacities
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_rivals import (
    CLASSIC,
    OURS,
    PLANNER,
    YARDSTICK,
    rivals,
)
from readahead.sim.experiments.capacity_search import (
    CALM,
    LEVELS,
    OVERLOAD,
    REPORTED,
    SHARE_MIN,
    TUNED,
)
from readahead.sim.experiments.experiment import Scope, Table
from readahead.sim.experiments.figures import COLOURS, canvas
from readahead.sim.experiments.intervals import mean, number, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NINETY_NINE = 0.99
ACTION_S = 300e-6
"""Of one of the simulator's events, measured on one core of the machine that made the rows."""

STYLES = {
    "vllm": ("o", 0),
    "vllm-chunked": ("s", 0),
    "sarathi": ("^", 0),
    "distserve": ("D", 0),
    "andes": ("v", 1),
    "tokenflow": ("P", 1),
    "llumnix": ("X", 1),
    YARDSTICK: ("o", 6),
    PLANNER: ("s", 2),
    OURS: ("D", 4),
}
"""A marker and a place among the colours: one colour for each family."""


def tables(found: Capacities) -> list[Table]:
    """Capacities of each cluster, then loads and knobs."""
    made = []
    for machine in found.machines:
        for kind in Kind:
            made.append(_capacities(found, machine, kind, SHARE_MIN))
        if found.mean(machine, found.scenarios(machine)[0], OURS, kind, NINETY_NINE).count:
            made += [_capacities(found, machine, kind, NINETY_NINE) for kind in Kind]
    return [*made, _levels(found), _knobs(found)]


def _capacities(found: Capacities, machine: str, kind: Kind, share_min: float) -> Table:
    policies = found.policies(machine)
    rows = []
    for scenario in found.scenarios(machine):
        means = [found.mean(machine, scenario, one, kind, share_min) for one in policies]
        best = max((one.value for one in means if one.count), default=0.0)
        cells = []
        for one in means:
            text = one.text() if one.value else "none" if one.count else "-"
            cells.append(f"**{text}**" if one.count and one.value == best else text)
        ratios = (
            found.ratio((machine, scenario), OURS, over, kind, share_min)
            for over in (CLASSIC, (PLANNER,))
        )
        over = (one.value.text() if one is not None and one.value.count else "-" for one in ratios)
        rows.append((SCENARIOS[scenario].words, *cells, *over))
    return Table(
        title=f"{MACHINES[machine].words}: {KIND_WORDS[kind]}, {share_min:.0%} attained",
        columns=(
            "sessions/s",
            *(f"`{one}`" for one in policies),
            f"`{OURS}` over the best of {', '.join(CLASSIC)}",
            f"`{OURS}` over `{PLANNER}`",
        ),
        rows=rows,
        note="Whole cluster; bold is the best. `none`: not at the least rate that was tried.",
    )


def _levels(found: Capacities) -> Table:
    rows = []
    for machine in found.machines:
        for scenario in found.scenarios(machine):
            cell = (machine, scenario)
            loads = [number(row, "rate_req_s") for row in where(
                found.rows, part=CALM, machine=machine, scenario=scenario
            )]  # fmt: skip
            if not loads:
                continue
            f1 = found.at_level(CALM, cell, "f1_tok_s")
            idle = found.at_level(OVERLOAD, cell, "idle_p99_s")
            capacity = max(
                found.mean(machine, scenario, one, Kind.READING).value
                for one in found.policies(machine, scenario)
            )
            top = max((name for name in f1 if name != OURS), key=lambda name: f1[name].value)
            shown = (
                f"{name} {values[name].text()}" if name in values else "-"
                for values, name in (
                    (f1, OURS), (f1, top), (idle, OURS), (idle, YARDSTICK), (idle, "vllm")
                )
            )  # fmt: skip
            over = loads[0] * LEVELS[OVERLOAD] / LEVELS[CALM]
            rows.append(
                (
                    machine,
                    SCENARIOS[scenario].words,
                    *([f"{loads[0]:.3g}, {over:.3g}", f"{loads[0] / capacity:.2f}, "
                       f"{over / capacity:.2f}"] if capacity else ["-", "-"]),
                    *shown,
                )
            )  # fmt: skip
    return Table(
        title="Calm and overload, all from the same arrivals, reading SLO",
        columns=(
            "cluster", "scenario", "sessions/s", "of the best policy's capacity",
            "F1 in calm, tok/s", "the best other's", "p99 idle in overload, s", "", "",
        ),
        rows=rows,
    )  # fmt: skip


def _knobs(found: Capacities) -> Table:
    rows = []
    for machine in found.machines:
        for policy in found.policies(machine):
            if len(rivals(MACHINES[machine])[policy].arms) < 2:
                continue
            for kind in Kind:
                taken = (
                    found.arms.get((machine, scenario, policy, kind), "-") for scenario in SCENARIOS
                )
                rows.append((machine, f"`{policy}`", KIND_WORDS[kind], *taken))
    return Table(
        title="The knobs that were taken, on the tuning seed",
        columns=("cluster", "policy", "promise", *(one.words for one in SCENARIOS.values())),
        rows=rows,
    )


def cost_note(found: Capacities) -> str:
    """How much was run, and how long the full scope takes by that on two cores."""
    points = [row for row in found.rows if row.get("actions") is not None]
    searched = [row for row in points if row["part"] in (TUNED, REPORTED)]
    groups = {(row["machine"], row["scenario"], row["policy"]) for row in points}
    if not searched:
        return "Nothing was run."
    per_s = mean(
        number(row, "actions") / number(row, "end_s") / MACHINES[str(row["machine"])].workers
        for row in searched
    ).value
    full = SIZES[Scope.FULL]
    seeds = {row["seed"] for row in searched}
    searches = sum(row["part"] == "found" for row in found.rows)
    each = len(searched) / searches if searches else 3.0
    whole_s = 0.0
    for machine in full.machines:
        about = MACHINES[machine]
        for scenario in about.scenarios or full.scenarios:
            runs = len(rivals(about)) * each * len(full.seeds) * len(full.shares_min) * len(Kind)
            whole_s += runs * SCENARIOS[scenario].window.end_s * about.workers
    hours = whole_s * per_s * ACTION_S / 2 / 3600
    return (
        f"{len(points):,} points of {len(groups)} searches on {len(seeds)} seeds, "
        f"{sum(number(row, 'actions') for row in points) / 1e6:,.1f} million events. By their "
        f"number the full scope takes some {hours:,.1f} h on two cores; a search that was broken "
        "off goes on where it was."
    )


LOW, HIGH = 0.25, 5.0
"""Of the ratios in the picture; what lies beyond is drawn at its edge."""


def figure(found: Capacities) -> bytes:
    """Each policy's capacity over the best of the classic ones."""
    machines = [one for one in found.machines if len(found.scenarios(one)) > 1] or found.machines
    with canvas(height=0.9 + 2.6 * len(machines), columns=2, rows=max(1, len(machines))) as drawn:
        for row, machine in enumerate(machines):
            for column, kind in enumerate(Kind):
                ax = drawn.rows[row][column]
                _panel(ax, found, machine, kind, has_names=column == 0)
        drawn.legend(columns=5)
        return drawn.png()


def _panel(ax: Axes, found: Capacities, machine: str, kind: Kind, *, has_names: bool) -> None:
    scenarios = found.scenarios(machine)
    ax.axvline(1.0, color=COLOURS[6], linewidth=0.8)
    for policy, (marker, colour) in STYLES.items():
        heights, values, halves = [], [], []
        for place, scenario in enumerate(scenarios):
            one = found.ratio((machine, scenario), policy, CLASSIC, kind)
            if one is not None and one.value.count:
                heights.append(-place)
                values.append(min(HIGH, max(LOW, one.value.value)))
                halves.append(one.value.half if math.isfinite(one.value.half) else 0.0)
        if not values:
            continue
        is_ours = policy == OURS
        ax.errorbar(
            values,
            heights,
            xerr=halves if is_ours else None,
            fmt=marker,
            color=COLOURS[colour],
            markersize=6.5 if is_ours else 4.5,
            markerfacecolor=None if policy in (OURS, PLANNER) else "none",
            zorder=3 if is_ours else 2,
            label=policy,
        )
    names = [SCENARIOS[one].words for one in scenarios]
    ax.set_yticks([-place for place in range(len(names))], names if has_names else [])
    ax.set_ylim(-len(names) + 0.5, 0.5)
    ax.set_xscale("log")
    ax.set_xlim(LOW * 0.93, HIGH * 1.07)
    ticks = (0.25, 0.5, 1.0, 2.0, 4.0)
    ax.set_xticks(ticks, [f"{tick:g}x" for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_title(f"{MACHINES[machine].words}: {KIND_WORDS[kind]}", fontsize=8)
    ax.set_xlabel("capacity over the best of vLLM, Sarathi, DistServe", fontsize=7.5)
