"""Through a spike: promises that were made are kept, others are served later, and it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.bursts_cells import (
    BLIND,
    LOADS,
    MACHINE,
    POLICIES,
    SIZES,
    cells,
    run_cell,
)
from readahead.sim.experiments.bursts_world import BEFORE_S, BIN_S, IN_TIME
from readahead.sim.experiments.capacity_cells import MACHINES
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.experiment import Cell, Claim, Findings, Row, Scope, Table, Verdict
from readahead.sim.experiments.intervals import Mean, distinct, mean, number, numbers, where

OURS = "readahead"
PLANNERS = ("slos-serve", OURS)
KEPT_MOST = 1.1
"""Times of what was promised, of 99 in 100 of those to whom something was."""
FULL = SIZES[Scope.FULL]
COLUMNS = (
    "meant in time at the first look, %",
    "their p99, times of the promise",
    "at the last look, %",
    "their p99, times",
    "spike attained, %",
    "spike p99, times",
    "all attained, %",
    "longest wait of the declined, s",
    "longest queue",
    "queue back after, s",
    "in time again after, s",
    "F1, tok/s",
    "p99 idle, s",
)
KIND_WORDS = {Kind.READING: "reading SLO", Kind.STAGED: "scenario's SLOs"}


@dataclass(frozen=True, slots=True)
class Lived:
    """All rows."""

    rows: Sequence[Row]

    @property
    def loads(self) -> list[str]:
        """Those that were run."""
        return [str(one) for one in distinct(self.rows, "load")]

    def policies(self, load: str) -> list[str]:
        """Those that were run."""
        return [str(one) for one in distinct(where(self.rows, load=load), "policy")]

    def of(self, load: str, policy: str, kind: Kind) -> list[Row]:
        """One for each seed."""
        return where(self.rows, load=load, policy=policy, kind=kind.value)

    def mean(self, load: str, policy: str, kind: Kind, name: str) -> Mean:
        """Of a number, over seeds that have one."""
        return mean(numbers(self.of(load, policy, kind), name))

    def over(self, load: str, policy: str, kind: Kind, name: str) -> tuple[Mean, int]:
        """A time to get over the spike, and on how many seeds its end was not seen; those count as
        what was seen of it."""
        rows = self.of(load, policy, kind)
        missing = sum(row[name] is None for row in rows)
        return mean(number(row, "seen_s" if row[name] is None else name) for row in rows), missing


def claims(found: Lived) -> list[Claim]:
    """All lines."""
    return [
        *(_kept(found, policy, name) for policy in PLANNERS for name in ("first", "last")),
        _all_finish(found),
        _more(found),
        _over(found, "queue_back_s", "The queue is back"),
        _over(found, "in_time_again_s", "Who comes is in time again"),
    ]


def _verdict(met: Sequence[bool]) -> Verdict:
    if not met:
        return Verdict.NOT_RUN
    return (Verdict.NOT, Verdict.PARTLY, Verdict.REPRODUCED)[any(met) + all(met)]


def _each(
    found: Lived, judge: Callable[[str, Kind], tuple[str, bool] | None]
) -> tuple[str, list[bool]]:
    shown, met = [], []
    for load in found.loads:
        parts = []
        for kind in Kind:
            one = judge(load, kind)
            if one is not None:
                parts.append(one[0])
                met.append(one[1])
        if parts:
            shown.append(f"{LOADS[load].words}: {' / '.join(parts)}")
    return "; ".join(shown) or "-", met


def _kept(found: Lived, policy: str, name: str) -> Claim:
    def judge(load: str, kind: Kind) -> tuple[str, bool] | None:
        p99 = found.mean(load, policy, kind, f"{name}_p99")
        share = found.mean(load, policy, kind, f"{name}_share")
        if not p99.count:
            return None
        return f"{p99.text()} of {share.text(2, scale=100)} %", p99.value <= KEPT_MOST

    ours, met = _each(found, judge)
    return Claim(
        finding=f"`{policy}`: of those in the spike whom it means to serve in time at the {name} "
        f"look, p99 is at most {KEPT_MOST:g}x of what was promised, by reading / scenario's SLO",
        paper="p99 stays near the target in spikes [P]" if policy != OURS else "-",
        ours=ours,
        verdict=_verdict(met),
        why="each with the share of all who came in the spike",
    )


def _all_finish(found: Lived) -> Claim:
    rows = [row for policy in PLANNERS for row in where(found.rows, policy=policy)]
    declined = sum(number(row, "declined") for row in rows)
    finished = sum(number(row, "declined_finished") for row in rows)
    unended = sum(number(row, "unended") for row in rows)
    return Claim(
        finding="Best-effort requests all get their whole answers",
        paper="-",
        ours=f"{finished:,.0f} of {declined:,.0f}; {unended:,.0f} requests without an end",
        verdict=_verdict([finished == declined and not unended] if rows else []),
    )


def _more(found: Lived) -> Claim:
    def judge(load: str, kind: Kind) -> tuple[str, bool] | None:
        shares = {
            policy: found.mean(load, policy, kind, "spike_attained")
            for policy in found.policies(load)
        }
        shares = {policy: one for policy, one in shares.items() if one.count}
        if OURS not in shares or len(shares) < 2:
            return None
        ours = shares.pop(OURS)
        best = max(shares, key=lambda policy: shares[policy].value)
        words = f"{ours.text(scale=100)} % for {shares[best].text(scale=100)} % ({best})"
        return words, ours.value >= shares[best].value

    ours, met = _each(found, judge)
    return Claim(
        finding=f"Of all who come in the spike `{OURS}` attains no fewer than the best other",
        paper="-",
        ours=ours,
        verdict=_verdict(met),
    )


def _over(found: Lived, name: str, words: str) -> Claim:
    def judge(load: str, kind: Kind) -> tuple[str, bool] | None:
        there = [one for one in found.policies(load) if found.of(load, one, kind)]
        if OURS not in there or len(there) < 2:
            return None
        times = {policy: found.over(load, policy, kind, name)[0] for policy in there}
        ours = times.pop(OURS)
        best = min(times, key=lambda policy: times[policy].value)
        shown = f"{_time(found, load, OURS, kind, name)} s for "
        shown += f"{_time(found, load, best, kind, name)} s ({best})"
        return shown, ours.value <= times[best].value + 1.0

    ours, met = _each(found, judge)
    return Claim(
        finding=f"{words} after the spike with `{OURS}` no later than with the best other, "
        "within 1 s",
        paper="-",
        ours=ours,
        verdict=_verdict(met),
    )


def _time(found: Lived, load: str, policy: str, kind: Kind, name: str) -> str:
    value, missing = found.over(load, policy, kind, name)
    return f"≥ {value.text(2)}" if missing else value.text(2)


def tables(found: Lived) -> list[Table]:
    """One for each load."""
    return [_table(found, load) for load in found.loads]


def _table(found: Lived, load: str) -> Table:
    rows = []
    for kind in Kind:
        for policy in found.policies(load):
            if not found.of(load, policy, kind):
                continue
            shown = [
                found.mean(load, policy, kind, name).text(2 if scale > 1 else 3, scale=scale)
                for name, scale in (
                    ("first_share", 100.0),
                    ("first_p99", 1.0),
                    ("last_share", 100.0),
                    ("last_p99", 1.0),
                    ("spike_attained", 100.0),
                    ("spike_p99", 1.0),
                    ("attained", 100.0),
                    ("declined_wait_max_s", 1.0),
                    ("queue_most", 1.0),
                )
            ]
            times = [
                _time(found, load, policy, kind, name)
                for name in ("queue_back_s", "in_time_again_s")
            ]
            ends = [
                found.mean(load, policy, kind, name).text() for name in ("f1_tok_s", "idle_p99_s")
            ]
            rows.append((KIND_WORDS[kind], f"`{policy}`", *shown, *times, *ends))
    return Table(
        title=f"{LOADS[load].words[0].upper()}{LOADS[load].words[1:]}",
        columns=("promise", "policy", *COLUMNS),
        rows=rows,
    )


@dataclass(frozen=True, slots=True)
class Bursts:
    """Spikes, made and recorded."""

    name: str = "bursts"
    title: str = "Through a spike"
    asked: str = (
        "When for some seconds far more come than can be served in time, does a planner keep what "
        "it promised, does everybody else get his answer, and how soon is it over?"
    )
    set_up: Sequence[str] = (
        f"{MACHINES[MACHINE].words}, colocated; promises and judging are those of `capacity`. "
        "Nobody is rejected; runs go on until everybody has his answer.",
        "Made spikes: Poisson arrivals, and for "
        f"{FULL.spike_s[1] - FULL.spike_s[0]:g} s a compound Poisson process on top; rates are "
        "shares of a first guess of what the cluster computes in full batches: "
        + "; ".join(
            f"{one.words} {one.base:g} + {one.spike:g}, batches of {one.mean_batch:g} on average"
            for one in LOADS.values()
            if not one.is_traced
        )
        + ".",
        "Recorded spikes: slices of Azure's code trace of 2023 with its own lengths, one for each "
        f"seed, without overlap, in time that runs so fast that the whole trace's mean is "
        f"{LOADS['azure-code'].base:g} of that guess. The spike of a slice is the "
        f"{FULL.busiest_s:g} s in which most prompt tokens come.",
        "Meant in time: whom `slos-serve` accepts, and whom the sacrifice set of `readahead` would "
        "have in time; at the first look at a request, and at the last before its prompt is "
        "computed: the sacrifice set is made anew for each iteration. "
        + " and ".join(f"`{one}`" for one in BLIND)
        + " mean everybody. Times of the promise: by the reading SLO the longest wait for text "
        "over the wait allowed; by the scenario's SLOs the greatest of the times to the first "
        "token and to each tenth after it, over what is allowed.",
        f"Queue: requests without a first token; it is back once it stays at most at the highest "
        f"of the {BEFORE_S:g} s before the spike. In time again: the first {BIN_S:g} s after the "
        f"spike of whose arrivals {IN_TIME:.0%} are attained.",
        "Settings, tuned for nothing here: "
        + ", ".join(
            f"`{name}`" + "".join(f" {knob} {value:g}" for knob, value in arm.knobs.items())
            for name, arm in POLICIES.items()
        )
        + ".",
    )
    profiles: Sequence[str] = (MACHINES[MACHINE].profile,)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """One for each load, policy, promise and seed."""
        return cells(scope)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """A run."""
        return run_cell(cell)

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Whose promises hold, and how soon it is over."""
        found = Lived(rows)
        notes = [
            "≥: on some seeds the end of it was not seen; those count as the time that was seen.",
            "Who is declined is served all the same, and may be in time.",
        ]
        missing = [one.words for name, one in LOADS.items() if name not in found.loads]
        if missing:
            notes.append(
                f"Not run here: {', '.join(missing)}. The trace is read from the folder that "
                "READAHEAD_DATA names."
            )
        return Findings(claims=claims(found), tables=tables(found), notes=notes)


EXPERIMENT = Bursts()
