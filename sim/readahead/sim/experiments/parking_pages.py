"""What the simulated parking experiment concludes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Claim, Row, Table, Verdict
from readahead.sim.experiments.figures import COLOURS, INK, MARKERS, canvas
from readahead.sim.experiments.intervals import (
    Mean,
    distinct,
    mean,
    number,
    numbers,
    paired,
    where,
)
from readahead.sim.experiments.parking_cells import (
    ARMS,
    CASES,
    OFF,
    SHORT_OF_MEMORY,
    SHORT_OF_TIME,
    SOLVENT,
    UNGUARDED,
)

HARM_MOST = 0.03
"""Share of what no parking attains, or gains, that parking may cost and still do no harm."""
IDLE_S_MOST, IDLE_MOST = 0.05, 0.05
"""p99 idle that may be added and still is equal: seconds, or as a share."""

COLUMNS = {
    "attained_reading": "reading attained",
    "f1_literal": "F1, tok/s",
    "f2_literal": "F2, tok/s",
    "f1_censored": "F1 censored",
    "idle_p99_s": "p99 idle, s",
    "idle_mean_s": "mean idle, s",
    "ttft_p99_s": "p99 TTFT, s",
    "attained_slo": "SLO attained",
    "preemptions": "preemptions",
    "parks": "parks",
    "host_gb": "host memory, GB",
    "copied_gb": "copied, GB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One case."""

    case: str
    rows: Sequence[Row]

    @property
    def words(self) -> str:
        """In words."""
        return CASES[self.case].words

    def mean(self, arm: str, name: str) -> Mean:
        """A number of an arm."""
        return mean(numbers(where(self.rows, arm=arm), name))

    def more(self, arm: str, other: str, name: str) -> Mean:
        """arm - other, seed by seed."""
        return paired(
            where(self.rows, arm=other),
            where(self.rows, arm=arm),
            lambda row: number(row, name),
        )

    def attains_more(self, arm: str, other: str) -> bool:
        """More reading promises are kept, by more than the interval."""
        return self.more(arm, other, "attained_reading").low > 0

    def is_as_good(self, arm: str, other: str, name: str) -> bool:
        """Not lower, in the mean, or lower by next to nothing."""
        least = -HARM_MOST * abs(self.mean(other, name).value)
        return self.more(arm, other, name).value >= least

    def is_as_quick(self, arm: str, other: str) -> bool:
        """p99 idle is not higher, alike."""
        most = max(IDLE_S_MOST, IDLE_MOST * self.mean(other, "idle_p99_s").value)
        return self.more(arm, other, "idle_p99_s").value <= most


def compared(rows: Sequence[Row]) -> list[Compared]:
    """All cases, in the order of the rows."""
    return [
        Compared(case=str(name), rows=where(rows, case=name)) for name in distinct(rows, "case")
    ]


def claims(found: Sequence[Compared]) -> list[Claim]:
    """All of them."""
    short = [one for one in found if one.case in SHORT_OF_MEMORY]
    beyond = [one for one in found if one.case in SHORT_OF_TIME]
    return [
        *_gains(short),
        _counted(
            beyond,
            finding="Where computing is the limit, parking without the solvency test harms: fewer "
            "reading promises are kept",
            paper="0.89 → 0.72, and 0.84 → 0.40 at a third of the memory, in a prototype",
            holds=lambda one: one.attains_more(OFF, UNGUARDED),
            shown=lambda one: _change(one, UNGUARDED, "attained_reading"),
        ),
        *_costs(found, short),
    ]


def _gains(short: Sequence[Compared]) -> list[Claim]:
    return [
        _counted(
            short,
            finding="Where KV memory is short and answers are long, solvent parking keeps more "
            "reading promises",
            paper="0.25 → 0.97 at a third of the memory, in a prototype",
            holds=lambda one: one.attains_more(SOLVENT, OFF),
            shown=lambda one: _change(one, SOLVENT, "attained_reading"),
        ),
        _counted(
            short,
            finding="There the slowest reader waits less (p99 idle), and smooth goodput is higher "
            "(F1 and F2)",
            paper="F1 542 → 13,142 in a surge, in a prototype",
            holds=_is_better,
            shown=lambda one: (
                f"{_change(one, SOLVENT, 'idle_p99_s', '{:.2f}')} s, F1 "
                + _change(one, SOLVENT, "f1_literal", "{:,.0f}")
            ),
        ),
    ]


def _costs(found: Sequence[Compared], short: Sequence[Compared]) -> list[Claim]:
    return [
        _counted(
            found,
            finding="With the test it harms nowhere: within 3 % of no parking, or better, in "
            "promises kept and in F1 and F2, and as quick (p99 idle)",
            paper="restores 0.89 and 0.83, in a prototype",
            holds=_is_harmless,
            shown=lambda one: f"{_change(one, SOLVENT, 'attained_reading')}, F1 {_percent(one)}",
        ),
        _counted(
            short,
            finding="The test costs nothing where parking helps: within 3 % of parking without it",
            paper="keeps the gain whole, in a prototype",
            holds=_is_free,
            shown=lambda one: (
                f"{one.mean(UNGUARDED, 'attained_reading').value:.3f} without, "
                f"{one.mean(SOLVENT, 'attained_reading').value:.3f} with it"
            ),
        ),
        _counted(
            found,
            finding="Parking costs no classical promises: SLO attainment (first token, then 100 ms "
            "a token) is within 3 % of no parking, or better",
            paper="-",
            holds=lambda one: one.is_as_good(SOLVENT, OFF, "attained_slo"),
            shown=lambda one: _change(one, SOLVENT, "attained_slo"),
        ),
    ]


def _is_better(one: Compared) -> bool:
    is_quicker = one.more(SOLVENT, OFF, "idle_p99_s").high < 0
    return is_quicker and all(
        one.more(SOLVENT, OFF, name).low > 0 for name in ("f1_literal", "f2_literal")
    )


def _is_harmless(one: Compared) -> bool:
    names = ("attained_reading", "f1_literal", "f2_literal")
    is_good = all(one.is_as_good(SOLVENT, OFF, name) for name in names)
    return is_good and one.is_as_quick(SOLVENT, OFF)


def _is_free(one: Compared) -> bool:
    names = ("attained_reading", "f1_literal")
    return all(one.is_as_good(SOLVENT, UNGUARDED, name) for name in names)


def _counted(
    found: Sequence[Compared],
    *,
    finding: str,
    paper: str,
    holds: Callable[[Compared], bool],
    shown: Callable[[Compared], str],
) -> Claim:
    met = [one for one in found if holds(one)]
    each = "; ".join(f"{one.words}: {shown(one)}" for one in found)
    verdict = Verdict.PARTLY if met else Verdict.NOT
    if len(met) == len(found):
        verdict = Verdict.REPRODUCED
    missed = ", ".join(one.words for one in found if one not in met)
    return Claim(
        finding=finding,
        paper=paper,
        ours=f"in {len(met)} of {len(found)} cases. {each}",
        verdict=verdict if found else Verdict.NOT_RUN,
        why=f"not: {missed}" if missed else "",
    )


def _change(one: Compared, arm: str, name: str, digits: str = "{:.3f}") -> str:
    before, after = (digits.format(one.mean(each, name).value) for each in (OFF, arm))
    return f"{before} → {after} (± {digits.format(one.more(arm, OFF, name).half)})"


def _percent(one: Compared) -> str:
    base = abs(one.mean(OFF, "f1_literal").value) or 1.0
    return f"{100 * one.more(SOLVENT, OFF, 'f1_literal').value / base:+.1f} %"


def tables(found: Sequence[Compared]) -> list[Table]:
    """All arms side by side."""
    rows = [
        (one.words, arm, *(one.mean(arm, name).text() for name in COLUMNS))
        for one in found
        for arm in ARMS
    ]
    return [
        Table(
            title="Arms side by side",
            columns=("case", "arm", *COLUMNS.values()),
            rows=rows,
            note="Reading attained: nobody waits in all longer than 1 s, or three times what the "
            "prompt takes alone. Host memory is the most that was taken at one time; copied is "
            "both ways.",
        )
    ]


PANELS: Mapping[str, str] = {"attained_reading": "reading attained", "idle_p99_s": "p99 idle, s"}


def figure(found: Sequence[Compared]) -> bytes:
    """Promises kept on the left, the slowest reader's wait on the right."""
    with canvas(height=1.4 + 0.55 * len(found), columns=2) as drawn:
        for ax, (name, label) in zip(drawn.axes, PANELS.items(), strict=True):
            for number_, arm in enumerate(ARMS):
                means = [one.mean(arm, name) for one in found]
                ax.errorbar(
                    [each.value for each in means],
                    [-place - 0.18 * (number_ - 1.5) for place in range(len(found))],
                    xerr=[each.half if each.half == each.half else 0.0 for each in means],
                    color=COLOURS[number_],
                    fmt=MARKERS[number_],
                    label=arm,
                )
            ax.set_xlabel(label)
            ax.set_yticks([-place for place in range(len(found))], [])
            for place in range(len(found) - 1):
                ax.axhline(-place - 0.5, color=INK, linewidth=0.4, alpha=0.4)
        kept, waits = drawn.axes
        kept.set_xlim(-0.02, 1.02)
        waits.set_xscale("symlog", linthresh=1.0)
        waits.set_xlim(left=-0.05)
        kept.set_yticks(
            [-place for place in range(len(found))],
            [one.words.replace(", a ", ",\na ") for one in found],
        )
        drawn.legend(len(ARMS))
        return drawn.png()
