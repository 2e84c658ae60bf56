"""What the ablation's rows say of each mechanism, of pairs of them, and where one does not pay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from readahead.sim.experiments.ablation_design import column, confounded, effect, resolution
from readahead.sim.experiments.ablation_factors import FACTORS, SHAPE_WORDS
from readahead.sim.experiments.capacity_cells import SCENARIOS
from readahead.sim.experiments.capacity_promises import Kind
from readahead.sim.experiments.experiment import Claim, Row, Table, Verdict
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import Mean, distinct, mean, number, paired, where

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A number of a run."""

    words: str
    column: str
    kind: Kind
    """The promise that the policy was told."""
    margin: float
    """An effect whose interval is within this of 0 is none."""
    scale: float = 1.0
    is_better_low: bool = False

    def of(self, row: Row) -> float:
        """In the unit in which it is shown."""
        return self.scale * number(row, self.column)


OUTCOMES = (
    Outcome(
        words="reading SLO attained, pp",
        column="attained_reading",
        kind=Kind.READING,
        margin=1.0,
        scale=100.0,
    ),
    Outcome(
        words="scenario's SLOs attained, pp",
        column="attained_staged",
        kind=Kind.STAGED,
        margin=1.0,
        scale=100.0,
    ),
    Outcome(words="F1, tok/s", column="f1_tok_s", kind=Kind.READING, margin=5.0),
    Outcome(
        words="p99 idle, s",
        column="idle_p99_s",
        kind=Kind.READING,
        margin=0.2,
        is_better_low=True,
    ),
)
SHORT = ("reading SLO", "scenario's SLOs", "F1", "p99 idle")


class Judged(StrEnum):
    """What an effect is, by its interval."""

    HELPS = "helps"
    HARMS = "harms"
    USELESS = "useless"
    UNCLEAR = "unclear"


def judged(added: Mean, outcome: Outcome) -> Judged:
    """Nothing is useless but what is known to be within the margin."""
    if -outcome.margin <= added.low and added.high <= outcome.margin:
        return Judged.USELESS
    if added.low <= 0 <= added.high or not added.count > 1:
        return Judged.UNCLEAR
    return Judged.HELPS if (added.value > 0) is not outcome.is_better_low else Judged.HARMS


@dataclass(frozen=True, slots=True)
class Runs:
    """All rows."""

    rows: Sequence[Row]

    @property
    def shapes(self) -> list[str]:
        """Clusters that were run."""
        return [str(one) for one in distinct(self.rows, "shape")]

    @property
    def scenarios(self) -> list[str]:
        """Workloads that were run."""
        return [str(one) for one in distinct(self.rows, "scenario")]

    def names(self, shape: str) -> list[str]:
        """Factors of a cluster."""
        rows = where(self.rows, shape=shape)
        return [name for name in FACTORS if any(column(name) in row for row in rows)]

    def of(self, shape: str, scenario: str, outcome: Outcome) -> list[Row]:
        """The runs that say something of an outcome."""
        return where(self.rows, shape=shape, scenario=scenario, kind=outcome.kind.value)

    def whole(self, shape: str, scenario: str, outcome: Outcome) -> list[Row]:
        """Those with all mechanisms on."""
        return [row for row in self.of(shape, scenario, outcome) if not self.off(row)]

    def off(self, row: Row) -> frozenset[str]:
        """Those that are off in a run."""
        return frozenset(name for name in FACTORS if row.get(column(name)) is False)

    def main(self, shape: str, scenario: str, term: Sequence[str], outcome: Outcome) -> Mean:
        """What it adds, the mean of all settings of the others."""
        rows = where(self.of(shape, scenario, outcome), is_designed=True)
        return effect(rows, term, outcome.of)

    def last(self, shape: str, scenario: str, name: str, outcome: Outcome) -> Mean:
        """What it adds where all others are on."""
        rows = self.of(shape, scenario, outcome)
        without = [row for row in rows if self.off(row) == {name}]
        return paired(without, self.whole(shape, scenario, outcome), outcome.of)


def signed(value: Mean) -> str:
    """With a plus."""
    return f"{'+' if value.value >= 0 else ''}{value.text(2)}"


def tables(found: Runs) -> list[Table]:
    """All tables."""
    every = [_where(found)]
    for shape in found.shapes:
        every += [_levels(found, shape), _effects(found, shape), _pairs(found, shape)]
    return every


def _where(found: Runs) -> Table:
    """By mechanism and workload: what it does to each outcome."""
    rows = []
    for shape in found.shapes:
        for name in found.names(shape):
            cells = [_said(found, shape, scenario, name) for scenario in found.scenarios]
            rows.append((FACTORS[name].words, shape, *cells))
    return Table(
        title="Where each mechanism helps, is useless, or harms",
        columns=("mechanism", "cluster", *(SCENARIOS[one].words for one in found.scenarios)),
        rows=rows,
        note="By main effects over the design. Useless: the interval lies within "
        + ", ".join(f"{one.margin:g} of {one.words}" for one in OUTCOMES)
        + ". What is not named is unclear: the interval holds 0, and more.",
    )


def _said(found: Runs, shape: str, scenario: str, name: str) -> str:
    by: dict[Judged, list[str]] = {}
    for short, outcome in zip(SHORT, OUTCOMES, strict=True):
        if found.of(shape, scenario, outcome):
            added = found.main(shape, scenario, (name,), outcome)
            by.setdefault(judged(added, outcome), []).append(short)
    shown = [
        f"{'**harms**' if what is Judged.HARMS else what.value}: {', '.join(by[what])}"
        for what in (Judged.HELPS, Judged.HARMS, Judged.USELESS)
        if what in by
    ]
    return "; ".join(shown) or Judged.UNCLEAR.value


def _levels(found: Runs, shape: str) -> Table:
    rows = []
    for scenario in found.scenarios:
        shown = [mean(map(one.of, found.whole(shape, scenario, one))).text() for one in OUTCOMES]
        loads = [
            found.whole(shape, scenario, one)[0]["rate_req_s"]
            for one in OUTCOMES[:2]
            if found.whole(shape, scenario, one)
        ]
        rates = " / ".join(f"{load:.3g}" for load in loads)
        rows.append((SCENARIOS[scenario].words, rates, *shown))
    return Table(
        title=f"With all mechanisms on: {SHAPE_WORDS[shape]}",
        columns=(
            "workload",
            "sessions/s, by reading / scenario's SLO",
            *(one.words for one in OUTCOMES),
        ),
        rows=rows,
    )


def _effects(found: Runs, shape: str) -> Table:
    rows = []
    for scenario in found.scenarios:
        for name in found.names(shape):
            shown = []
            for outcome in OUTCOMES:
                shown.append(signed(found.main(shape, scenario, (name,), outcome)))
                shown.append(signed(found.last(shape, scenario, name, outcome)))
            rows.append((SCENARIOS[scenario].words, FACTORS[name].words, *shown))
    columns = [part for one in OUTCOMES for part in (one.words, "as the last one")]
    names = found.names(shape)
    length = resolution(names)
    kind = "all combinations" if length is None else f"resolution {_roman(length)}"
    return Table(
        title=f"What each mechanism adds: {SHAPE_WORDS[shape]}",
        columns=("workload", "mechanism", *columns),
        rows=rows,
        note=f"{len(names)} mechanisms, {kind}. First column of each pair: on against off, the "
        "mean of all settings of the others; second: on against off where all others are on.",
    )


def _roman(length: int) -> str:
    return {3: "III", 4: "IV", 5: "V", 6: "VI"}.get(length, str(length))


def _pairs(found: Runs, shape: str) -> Table:
    """The interactions that are there: their interval is without 0, and beyond the margin."""
    rows = []
    groups = confounded(found.names(shape))
    tried = 0
    for scenario in found.scenarios:
        for outcome in OUTCOMES:
            if not found.of(shape, scenario, outcome):
                continue
            for group in groups:
                added = found.main(shape, scenario, group[0], outcome)
                tried += 1
                if abs(added.value) > outcome.margin and not added.low <= 0 <= added.high:
                    shown = " or ".join(" x ".join(_short(pair)) for pair in group)
                    words = (SCENARIOS[scenario].words, outcome.words, shown, signed(added))
                    rows.append((abs(added.value) / outcome.margin, words))
    rows.sort(key=lambda row: -row[0])
    return Table(
        title=f"Pairs that are more, or less, than their parts: {SHAPE_WORDS[shape]}",
        columns=("workload", "outcome", "pair", "interaction"),
        rows=[words for _, words in rows],
        note=f"Of {tried} that were looked at, those whose interval holds no 0 and whose size is "
        "above the margin; one in twenty does so by chance. Half of what the one adds more where "
        "the other is on. Pairs joined by `or` are not told apart by the design.",
    )


def _short(pair: Iterable[str]) -> list[str]:
    return [FACTORS[name].words for name in pair]


def claims(found: Runs) -> list[Claim]:
    """A line for each mechanism, and one for all together."""
    every = [_claim(found, shape, name) for shape in found.shapes for name in found.names(shape)]
    return [*every, *(_whole(found, shape) for shape in found.shapes)]


def _claim(found: Runs, shape: str, name: str) -> Claim:
    helps, harms, useless, unclear = 0, 0, 0, 0
    best = ("", 0.0, Mean(value=0.0, half=0.0, count=0))
    for scenario in found.scenarios:
        for outcome in OUTCOMES:
            if not found.of(shape, scenario, outcome):
                continue
            added = found.main(shape, scenario, (name,), outcome)
            said = judged(added, outcome)
            helps, harms = helps + (said is Judged.HELPS), harms + (said is Judged.HARMS)
            useless, unclear = (
                useless + (said is Judged.USELESS),
                unclear + (said is Judged.UNCLEAR),
            )
            size = abs(added.value) / outcome.margin
            if outcome in OUTCOMES[:2] and size > best[1]:
                best = (f"{SCENARIOS[scenario].words}, {outcome.words}", size, added)
    verdict = Verdict.REPRODUCED if helps and not harms else Verdict.PARTLY
    ours = f"helps in {helps}, harms in {harms}, useless in {useless}, unclear in {unclear}"
    if best[0]:
        ours += f"; most in {best[0]}: {signed(best[2])}"
    return Claim(
        finding=f"{FACTORS[name].words} ({shape}) pays somewhere, and harms nowhere",
        paper="-",
        ours=ours,
        verdict=verdict if helps else Verdict.NOT,
    )


def _whole(found: Runs, shape: str) -> Claim:
    """Whether leaving something out is better than the whole policy."""
    shown, met = [], []
    for scenario in found.scenarios:
        for short, outcome in zip(SHORT[:2], OUTCOMES[:2], strict=True):
            rows, whole = found.of(shape, scenario, outcome), found.whole(shape, scenario, outcome)
            gains = {
                off: paired(whole, [row for row in rows if found.off(row) == off], outcome.of)
                for off in {found.off(row) for row in rows if found.off(row)}
            }
            if not gains:
                continue
            best = max(gains, key=lambda off: (gains[off].value, sorted(off)))
            met.append(gains[best].low <= outcome.margin)
            words = ", ".join(FACTORS[name].words for name in FACTORS if name in best)
            shown.append(
                f"{SCENARIOS[scenario].words}, {short}: {signed(gains[best])} pp without {words}"
            )
    if not met:
        verdict = Verdict.NOT_RUN
    else:
        verdict = (Verdict.NOT, Verdict.PARTLY, Verdict.REPRODUCED)[any(met) + all(met)]
    return Claim(
        finding=f"No run of the design attains more than the whole policy ({shape}), beyond 1 pp",
        paper="-",
        ours="; ".join(shown) or "-",
        verdict=verdict,
        why=f"in {sum(met)} of {len(met)}; the best of many is flattered by chance" if met else "",
    )


def figure(found: Runs) -> bytes:
    """Main effects on both kinds of attainment, with their intervals."""
    shapes = found.shapes
    with canvas(height=0.9 + 2.3 * len(shapes), columns=2, rows=max(1, len(shapes))) as drawn:
        for place, shape in enumerate(shapes):
            for side, outcome in enumerate(OUTCOMES[:2]):
                _panel(drawn.rows[place][side], found, shape, outcome, has_names=not side)
        drawn.legend(columns=4)
        return drawn.png()


def _panel(ax: Axes, found: Runs, shape: str, outcome: Outcome, *, has_names: bool) -> None:
    names = found.names(shape)
    ax.axvline(0.0, color=COLOURS[6], linewidth=0.8)
    for place, scenario in enumerate(found.scenarios):
        if not found.of(shape, scenario, outcome):
            continue
        values = [found.main(shape, scenario, (name,), outcome) for name in names]
        heights = [-row + 0.3 - 0.2 * place for row in range(len(names))]
        ax.errorbar(
            [one.value for one in values],
            heights,
            xerr=[one.half for one in values],
            fmt=MARKERS[place],
            color=COLOURS[place],
            markersize=4.0,
            label=SCENARIOS[scenario].words,
        )
    words = [FACTORS[name].words for name in names]
    ax.set_yticks([-row for row in range(len(names))], words if has_names else [])
    ax.set_ylim(-len(names) + 0.4, 0.6)
    ax.set_title(shape, fontsize=8)
    ax.set_xlabel(outcome.words, fontsize=7.5)
