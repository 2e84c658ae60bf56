"""What the experiment on elastic roles concludes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.experiment import Claim, Row, Table, Verdict
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import Mean, distinct, mean, number, numbers, where
from readahead.sim.experiments.roles_cells import (
    COLOCATED,
    ELASTIC,
    FAMILIES,
    PLACED,
    SHAPES,
    STATIC,
    TUNING_SEED,
)
from readahead.sim.experiments.sweeps import capacity_req_s

WITHIN = 0.97
"""Of the colocated capacity: what elastic roles are to reach."""
SHARE_MIN = 0.9
KINDS = {Kind.READING: "reading", Kind.STAGED: "staged"}
COLUMNS = {
    "capacity": "capacity, req/s",
    "ratio": "over colocated",
    "attained": "attained at the heaviest load",
    "f1_tok_s": "F1 there, tok/s",
    "idle_p99_s": "p99 idle there, s",
    "taken_share": "prompts that decode workers took",
    "kept_share": "answers that prefill workers kept",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One scenario under one kind of promise."""

    scenario: str
    kind: Kind
    rows: Sequence[Row]
    best: dict[str, str]
    """By family, its shape that carries most on the tuning seed."""

    @property
    def words(self) -> str:
        """In words."""
        return f"{self.scenario}, {KINDS[self.kind]}"

    @property
    def seeds(self) -> list[int]:
        """Those that are reported."""
        return [int(number({"seed": seed}, "seed")) for seed in distinct(self.rows, "seed")]

    def capacity(self, shape: str) -> Mean:
        """Over seeds, requests a second."""
        return mean(self._capacity_req_s(shape, seed) for seed in self.seeds)

    def ratio(self, shape: str, to: str) -> Mean:
        """Of two capacities, seed by seed; of none where one was not run or carried nothing."""
        found = []
        for seed in self.seeds:
            base_req_s = self._capacity_req_s(to, seed)
            if base_req_s > 0:
                found.append(self._capacity_req_s(shape, seed) / base_req_s)
        return mean(found)

    def heaviest(self, shape: str, name: str) -> Mean:
        """A number at the heaviest load."""
        rows = where(self.rows, shape=shape)
        most = max(numbers(rows, "load"))
        name = f"attained_{self.kind.value}" if name == "attained" else name
        return mean(numbers(where(rows, load=most), name))

    def _capacity_req_s(self, shape: str, seed: int) -> float:
        return capacity_of(where(self.rows, shape=shape, seed=seed), self.kind)


def capacity_of(rows: Sequence[Row], kind: Kind) -> float:
    """Of one shape with one seed, requests a second; 0 where it was not run."""
    return capacity_req_s(rows, f"attained_{kind.value}", SHARE_MIN) if rows else 0.0


def compared(rows: Sequence[Row]) -> list[Compared]:
    """All of them, in the order of the rows."""
    found = []
    for scenario in distinct(rows, "scenario"):
        for kind in Kind:
            every = where(rows, scenario=scenario, kind=kind.value)
            if every:
                found.append(_compared(str(scenario), kind, every))
    return found


def _compared(scenario: str, kind: Kind, every: Sequence[Row]) -> Compared:
    best: dict[str, str] = {}
    for family in FAMILIES:
        shapes = [name for name in distinct(every, "shape") if SHAPES[str(name)].family == family]
        tuned = {
            str(shape): _worth(where(every, shape=shape, seed=TUNING_SEED), kind)
            for shape in shapes
        }
        if tuned:
            best[family] = max(tuned, key=lambda shape: tuned[shape])
    return Compared(
        scenario=scenario,
        kind=kind,
        rows=[row for row in every if row["seed"] != TUNING_SEED],
        best=best,
    )


def _worth(rows: Sequence[Row], kind: Kind) -> tuple[float, float]:
    """Capacity, and where that is the same, what was attained over all loads."""
    return capacity_of(rows, kind), sum(numbers(rows, f"attained_{kind.value}"))


def claims(found: Sequence[Compared]) -> list[Claim]:
    """All of them."""
    return [
        _claim(
            found,
            finding=f"Elastic roles carry at least {WITHIN} of what colocated workers carry",
            over=COLOCATED,
            least=WITHIN,
        ),
        _claim(found, finding="Elastic roles carry more than static pools", over=STATIC, least=1.0),
        _claim(
            found,
            finding=f"Elastic roles carry at least {WITHIN} of colocated workers that are chosen "
            "by predicted time too",
            over=PLACED,
            least=WITHIN,
        ),
    ]


def _claim(found: Sequence[Compared], *, finding: str, over: str, least: float) -> Claim:
    ratios = [
        (one, one.ratio(one.best[ELASTIC], one.best[over]))
        for one in found
        if ELASTIC in one.best and over in one.best
    ]
    met = [one for one, ratio in ratios if ratio.value >= least]
    shown = "; ".join(
        f"{one.words}: {ratio.text()} ({one.best[ELASTIC]} over {one.best[over]})"
        for one, ratio in ratios
    )
    verdict = Verdict.PARTLY if met else Verdict.NOT
    if len(met) == len(ratios):
        verdict = Verdict.REPRODUCED
    return Claim(
        finding=finding,
        paper="-",
        ours=f"in {len(met)} of {len(ratios)} cells. {shown}",
        verdict=verdict if ratios else Verdict.NOT_RUN,
        why="of the means" if ratios else "",
    )


def tables(found: Sequence[Compared]) -> list[Table]:
    """The chosen shapes side by side, then all of them."""
    chosen, every = [], []
    for one in found:
        for shape in distinct(one.rows, "shape"):
            line = (one.words, str(shape), *_numbers(one, str(shape)))
            every.append(line)
            if shape in one.best.values():
                chosen.append(line)
    columns = ("cell", "shape", *COLUMNS.values())
    return [
        Table(title="The best of each", columns=columns, rows=chosen),
        Table(title="All shapes", columns=columns, rows=every),
    ]


def _numbers(one: Compared, shape: str) -> list[str]:
    found = {
        "capacity": one.capacity(shape),
        "ratio": one.ratio(shape, COLOCATED),
        **{name: one.heaviest(shape, name) for name in [*COLUMNS][2:]},
    }
    return [found[name].text() for name in COLUMNS]


def notes(found: Sequence[Compared]) -> list[str]:
    """What to bear in mind."""
    told = [
        "A capacity at the heaviest load that was run is a lower bound, and one of 0 says that "
        "the lightest load was too much.",
        "Who is placed by predicted time gains by that alone; elastic roles are to be held "
        "against colocated workers that are placed so, too.",
    ]
    capped = [
        f"{one.words}: {shape}"
        for one in found
        for shape in one.best.values()
        if one.heaviest(shape, "attained").value >= SHARE_MIN
    ]
    return [*told, *([f"At that bound: {'; '.join(capped)}."] if capped else [])]


def figure(found: Sequence[Compared]) -> bytes:
    """Capacity over colocated, by family."""
    with canvas(height=1.2 + 0.5 * len(found)) as drawn:
        ax = drawn.axes[0]
        for place, family in enumerate(FAMILIES[1:]):
            for line, one in enumerate(found):
                if family not in one.best:
                    continue
                ratio = one.ratio(one.best[family], COLOCATED)
                ax.errorbar(
                    ratio.value,
                    -line - 0.2 * (place - 1),
                    xerr=ratio.half,
                    color=COLOURS[place],
                    fmt=MARKERS[place],
                    label=family if line == 0 else None,
                )
        ax.axvline(1.0, color="#24292f", linewidth=0.8)
        ax.set_xlabel("capacity over colocated")
        ax.set_yticks([-line for line in range(len(found))], [one.words for one in found])
        drawn.legend(len(FAMILIES) - 1)
        return drawn.png()
