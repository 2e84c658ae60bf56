"""The search for a capacity: bisection over rates, each rival at its own best knob."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    SIZES,
    TUNING_SEED,
    TUNING_SHARE,
    Arm,
    Size,
    cluster,
    window,
)
from readahead.sim.experiments.capacity_kept import Kept, fingerprint, key
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.capacity_rivals import (
    Rival,
    rivals,
)
from readahead.sim.experiments.capacity_sessions import guess_req_s, kept_share, recorded
from readahead.sim.experiments.capacity_world import TAIL_S, Point
from readahead.sim.experiments.experiment import Row, Scope
from readahead.sim.experiments.intervals import number
from readahead.sim.experiments.raw_rows import rounded

LEAST, MOST = 0.08, 4.0
"""Rates that are tried, as shares of the first guess."""
TUNED, REPORTED, CALM, OVERLOAD, FOUND = "tuned", "reported", "calm", "overload", "found"
SHARE_MIN = 0.90
"""Attainment that a capacity means where nothing else is said. Ref: [SLOs-Serve]."""
LEVELS = {CALM: 0.4, OVERLOAD: 1.6}
"""Loads that all policies are put under, as shares of the first guess."""


def highest(passes: Callable[[int], bool], start: int, *, least: int, most: int) -> int:
    """The highest step that passes while the next one does not; least - 1 where none does.

    From `start` it doubles its strides, then halves them. Where passing is not monotone it is one
    of those steps.
    """
    good, bad, stride = least - 1, most + 1, 1
    step = min(max(start, least), most)
    while good + 1 < bad:
        if passes(step):
            good = step
        else:
            bad = step
        if good >= least and bad <= most:
            step = (good + bad) // 2
            continue
        step = min(good + stride, most) if good >= least else max(bad - stride, least)
        stride *= 2
    return good


def passed(row: Row, kind: Kind, share_min: float) -> bool:
    """Whether enough were attained, and the last answer was not much too late. [SLOs-Serve]"""
    is_attained = number(row, f"attained_{kind}") >= share_min
    return is_attained and number(row, f"tail_{kind}_s") < TAIL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """All loads of one seed under one arm."""

    part: str
    arm: str
    kind: Kind
    """Of the promise."""
    seed: int


@dataclass(slots=True, kw_only=True)
class Search:
    """One policy on one cluster in one scenario. Its rows are all points that were run."""

    machine: str
    scenario: str
    policy: str
    scope: Scope
    folder: Path | None
    """Where points are kept."""
    used: list[Row] = field(default_factory=list)
    _kept: Kept = field(init=False)
    _seen: set[tuple[object, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        name = f"{self.machine}.{self.scenario}.{self.policy}"
        folder = None if self.folder is None else self.folder / self.scope.value / self._code()
        self._kept = Kept(folder, name)

    def _code(self) -> str:
        arms = self._rival.arms
        policies = frozenset(arm.policy for arm in arms.values())
        return fingerprint(policies, f"{MACHINES[self.machine]} {arms}")

    def run(self) -> list[Row]:
        """Searches the knobs, then the capacities with the best ones."""
        start, found = 0, list[Row]()
        for kind in Kind:
            arm, start = self._tuned(kind, start)
            found += self._reported(arm, kind, start)
            for level, share in LEVELS.items() if kind is Kind.READING else ():
                for seed in self._size.seeds:
                    line = Line(part=level, arm=arm, kind=kind, seed=seed)
                    self._at(line, self._step(share))
        return [*self.used, *found]

    @property
    def _size(self) -> Size:
        return SIZES[self.scope]

    @property
    def _rival(self) -> Rival:
        return rivals(MACHINES[self.machine])[self.policy]

    def _step(self, share: float) -> int:
        return round(math.log(share) / math.log(self._size.step))

    def _tuned(self, kind: Kind, start: int) -> tuple[str, int]:
        """The arm that gets furthest on the tuning seed, and how far; of equals the first."""
        lines = [Line(part=TUNED, arm=arm, kind=kind, seed=TUNING_SEED) for arm in self._rival.arms]
        best = lines[0]
        if len(lines) == 1:
            return best.arm, start
        step = self._highest(best, start, SHARE_MIN)
        for line in lines[1:]:
            share = self._share(best, step + 1)
            if self._share(line, step + 1) <= share:
                continue
            reached = self._highest(line, step + 1, SHARE_MIN)
            if reached >= step:
                best, step = line, reached
        return best.arm, step

    def _share(self, line: Line, step: int) -> float:
        return number(self._at(line, step), f"attained_{line.kind}")

    def _reported(self, arm: str, kind: Kind, start: int) -> list[Row]:
        """The capacity for each seed; each begins where the one before ended."""
        found: list[Row] = []
        for share_min in self._size.shares_min:
            step = start
            for seed in self._size.seeds:
                line = Line(part=REPORTED, arm=arm, kind=kind, seed=seed)
                step = self._highest(line, step, share_min)
                found.append(
                    {
                        "machine": self.machine,
                        "scenario": self.scenario,
                        "policy": self.policy,
                        "part": FOUND,
                        "arm": arm,
                        "kind": kind.value,
                        "share_min": share_min,
                        "seed": seed,
                        "capacity_req_s": self._capacity_req_s(line, step, share_min),
                    }
                )
        return found

    def _capacity_req_s(self, line: Line, step: int, share_min: float) -> float:
        """Between the rate that passed and the next one, where the share crosses its bound."""
        if step < self._step(LEAST):
            return 0.0
        good = self._at(line, step)
        rate_req_s = number(good, "rate_req_s")
        if step >= self._step(MOST):
            return rate_req_s
        bad = self._at(line, step + 1)
        above = self._share(line, step) - share_min
        below = share_min - self._share(line, step + 1)
        if bad["is_cut"] or below <= 0:
            return rate_req_s  # broken off, or failed by its tail
        return rate_req_s * math.exp(math.log(self._size.step) * above / (above + below))

    def _highest(self, line: Line, start: int, share_min: float) -> int:
        return highest(
            lambda step: passed(self._at(line, step), line.kind, share_min),
            start,
            least=self._step(LEAST),
            most=self._step(MOST),
        )

    def _at(self, line: Line, step: int) -> Row:
        """One point, run now if it was not before."""
        rival, size = self._rival, self._size
        told = line.kind if rival.sees_promise else Kind.READING
        share = size.share * (TUNING_SHARE if line.part == TUNED else 1.0)
        scored = window(self.scenario, share)
        about = rounded(
            {
                "machine": self.machine,
                "scenario": self.scenario,
                "policy": self.policy,
                "part": line.part,
                "arm": line.arm,
                "told": told.value,
                "step": step,
                "seed": line.seed,
                "rate_req_s": guess_req_s(self.machine, self.scenario) * size.step**step,
                "start_s": scored.start_s,
                "last_s": scored.last_s,
                "end_s": scored.end_s,
            }
        )
        row = self._kept.rows.get(key(about))
        if row is None:
            point = Point(
                spec=cluster(MACHINES[self.machine], rival.arms[line.arm]),
                told=told,
                kinds=(line.kind,) if rival.sees_promise else tuple(Kind),
                window=scored,
                seed=line.seed,
                is_patient=line.part in LEVELS,
            )
            row = rounded({**about, **self._run(point, number(about, "rate_req_s"))})
            self._kept.add(row)
        if key(row) not in self._seen:
            self._seen.add(key(row))
            self.used.append(row)
        return row

    def _run(self, point: Point, rate_req_s: float) -> Row:
        sessions = recorded(self.machine, self.scenario, point.seed).until(
            point.window.end_s,
            rate_req_s=rate_req_s,
            kept_share=kept_share(self.machine, self.scenario),
        )
        whole = cluster(MACHINES[self.machine], Arm(policy="vllm"))
        return point.numbers(sessions, whole=whole)
