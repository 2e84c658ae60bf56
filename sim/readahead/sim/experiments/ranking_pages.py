"""What the ranking concludes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readahead.sim.experiments.experiment import Claim, Row, Table, Verdict
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import (
    Mean,
    distinct,
    mean,
    number,
    numbers,
    paired,
    where,
)
from readahead.sim.experiments.ranking_cells import LEVELS, LOADS, REPORTED, RIVALS, TUNED

OURS = "readahead"
YARDSTICKS = ("slack", OURS)
"""Ours; the others are other people's."""
COLUMNS = {
    "f1_literal": "F1, tok/s",
    "f2_literal": "F2, tok/s",
    "f1_window": "F1 in the window",
    "attained_slo": "SLO attained",
    "attained_reading": "reading attained",
    "ttft_p99_s": "p99 TTFT, s",
    "idle_p99_s": "p99 idle, s",
    "throughput_tok_s": "throughput, tok/s",
}
SHOWN = (0.5, 1.06)
"""Of the shares, in the picture."""
CALM_SHARE = 0.01
"""Policies within this of the best are as good as it where nothing is scarce."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """One workload at one load."""

    load: str
    level: str
    rows: Sequence[Row]

    @property
    def words(self) -> str:
        """In words."""
        return f"{LOADS[self.load].words}, {self.level}"

    def of(self, rival: str) -> list[Row]:
        """Rows of a policy."""
        return where(self.rows, rival=rival)

    def arm(self, rival: str) -> str:
        """The knobs it was run with."""
        return str(self.of(rival)[0]["arm"])

    def mean(self, rival: str, name: str) -> Mean:
        """A number of a policy."""
        return mean(numbers(self.of(rival), name))

    def order(self, name: str) -> list[str]:
        """All policies, the best first."""
        there = [rival for rival in RIVALS if self.of(rival)]
        return sorted(there, key=lambda rival: -self.mean(rival, name).value)

    def share(self, rival: str) -> Mean:
        """Its smooth goodput (F1) over the best policy's, seed by seed."""
        best = {
            row["seed"]: number(row, "f1_literal") for row in self.of(self.order("f1_literal")[0])
        }
        return mean(
            number(row, "f1_literal") / best[row["seed"]]
            for row in self.of(rival)
            if best.get(row["seed"])
        )

    def best_rival(self, name: str) -> str:
        """The best of other people's."""
        return next(rival for rival in self.order(name) if rival not in YARDSTICKS)

    def lead(self, name: str) -> Mean:
        """Ours less the best rival, seed by seed."""
        rival = self.of(self.best_rival(name))
        return paired(rival, self.of(OURS), lambda row: number(row, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """The knobs of one rival on one workload, and what each brought (F1)."""

    rival: str
    load: str
    by_arm: Mapping[str, float]

    @property
    def best(self) -> str:
        """The best arm."""
        return max(self.by_arm, key=lambda arm: self.by_arm[arm])


def ranked(rows: Sequence[Row]) -> list[Ranked]:
    """All workloads and loads, in the order of the rows."""
    reported = where(rows, part=REPORTED)
    return [
        Ranked(load=str(load), level=str(level), rows=kept)
        for load in distinct(reported, "load")
        for level in distinct(reported, "level")
        if (kept := where(reported, load=load, level=level))
    ]


def searched(rows: Sequence[Row]) -> list[Searched]:
    """The search for knobs."""
    tuned = where(rows, part=TUNED)
    found = []
    for load in distinct(tuned, "load"):
        for rival in distinct(tuned, "rival"):
            every = where(tuned, load=load, rival=rival)
            by_arm = {
                str(arm): mean(numbers(where(every, arm=arm), "f1_literal")).value
                for arm in distinct(every, "arm")
            }
            found.append(Searched(rival=str(rival), load=str(load), by_arm=by_arm))
    return found


def claims(found: Sequence[Ranked]) -> list[Claim]:
    """All of them."""
    return [
        _ranks(found),
        _calm(found),
        _ahead(found, "f1_literal", "smooth goodput under F1"),
        _ahead(found, "f2_literal", "smooth goodput under F2"),
        _ahead(found, "attained_slo", "SLO attainment"),
    ]


def _ranks(found: Sequence[Ranked]) -> Claim:
    shown = "; ".join(f"{one.words}: {', '.join(one.order('f1_literal')[:4])}" for one in found)
    count = len({rival for one in found for rival in one.order("f1_literal")})
    return Claim(
        finding="One ruler ranks six policies or more from identical arrivals, by one command",
        paper="the framework subsumes the others' SLOs [P]",
        ours=f"{count} policies in {len(found)} cells. The first four by F1: {shown}",
        verdict=Verdict.REPRODUCED if count >= 6 else Verdict.NOT,
    )


def _calm(found: Sequence[Ranked]) -> Claim:
    calm = [one for one in found if one.level == LEVELS[0]]
    shares = {one.words: one.share(OURS).value for one in calm}
    met = sum(share >= 1 - CALM_SHARE for share in shares.values())
    shown = "; ".join(f"{words} {share:.3f}" for words, share in shares.items())
    return Claim(
        finding="In calm `readahead` is within 1 % of the best policy's F1",
        paper="-",
        ours=f"in {met} of {len(calm)} workloads: {shown}",
        verdict=_verdict(met, len(calm)),
    )


def _ahead(found: Sequence[Ranked], name: str, words: str) -> Claim:
    loaded = [one for one in found if one.level != LEVELS[0]]
    leads = [(one, one.lead(name)) for one in loaded]
    met = sum(lead.low > 0 for _, lead in leads)
    behind = sum(lead.high < 0 for _, lead in leads)
    digits = 3 if name.startswith("attained") else 0
    shown = "; ".join(
        f"{one.words}: {lead.value:+,.{digits}f} ± {lead.half:,.{digits}f} ({one.best_rival(name)})"
        for one, lead in leads
    )
    return Claim(
        finding=f"Near capacity and beyond `readahead` is ahead of the best rival in {words}",
        paper="-",
        ours=f"ahead in {met}, behind in {behind} of {len(loaded)} cells (interval without 0). "
        f"{shown}",
        verdict=_verdict(met, len(loaded)),
    )


def _verdict(met: int, total: int) -> Verdict:
    if not total:
        return Verdict.NOT_RUN
    if met == total:
        return Verdict.REPRODUCED
    return Verdict.PARTLY if met else Verdict.NOT


def tables(found: Sequence[Ranked], search: Sequence[Searched]) -> list[Table]:
    """A table for each cell, and the search."""
    made = []
    for one in found:
        rows = []
        for place, rival in enumerate(one.order("f1_literal"), start=1):
            cells = (one.mean(rival, name).text() for name in COLUMNS)
            rows.append((str(place), f"`{rival}`", one.arm(rival), *cells))
        made.append(
            Table(title=one.words, columns=("", "policy", "knob", *COLUMNS.values()), rows=rows)
        )
    return [*made, _search_table(search)] if search else made


def _search_table(search: Sequence[Searched]) -> Table:
    rows = []
    for one in search:
        for arm, value in one.by_arm.items():
            mark = "taken" if arm == one.best else ""
            rows.append((LOADS[one.load].words, f"`{one.rival}`", arm, f"{value:,.4g}", mark))
    return Table(
        title="The search for knobs, near capacity, on the tuning seed",
        columns=("workload", "policy", "knob", "F1, tok/s", ""),
        rows=rows,
    )


def figure(found: Sequence[Ranked]) -> bytes:
    """Each cell's policies as shares of its best."""
    rivals = list(RIVALS)
    columns = min(3, max(1, len(found)))
    count = -(-len(found) // columns)
    with canvas(height=0.8 + 2.1 * count, columns=columns, rows=count) as drawn:
        for place, (ax, one) in enumerate(zip(drawn.axes, found, strict=False)):
            for row, rival in enumerate(rivals):
                share = one.share(rival)
                is_ours = rival in YARDSTICKS
                ax.errorbar(
                    max(SHOWN[0], share.value),
                    -row,
                    xerr=share.half if share.value > SHOWN[0] else 0.0,
                    color=COLOURS[4 if is_ours else 0],
                    fmt=MARKERS[1 if is_ours else 0],
                )
            is_left = place % columns == 0
            ax.set_yticks([-row for row in range(len(rivals))], rivals if is_left else [])
            ax.set_xlim(SHOWN[0] - 0.02, SHOWN[1])
            ax.set_xlabel("share of the best policy's F1")
            ax.set_title(one.words.replace("chat, code, reasoning mixed", "mixed"), fontsize=8)
        for ax in drawn.axes[len(found) :]:
            ax.set_visible(False)
        return drawn.png()
