"""Does smooth goodput have a best load inside, where throughput has none?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from readahead.sim.experiments.experiment import (
    Cell,
    Claim,
    Figure,
    Findings,
    Row,
    Scope,
    Table,
    Verdict,
)
from readahead.sim.experiments.figures import canvas, floor_at, line
from readahead.sim.experiments.intervals import where
from readahead.sim.experiments.served import AZURE, LONG_OUTPUT, LONG_PROMPT, PROFILES
from readahead.sim.experiments.sweeps import (
    ALPHAS,
    KINDS,
    PAIRS,
    RATES_REQ_S,
    SIZES,
    Curve,
    capacity_req_s,
    cells,
    column,
    curve,
    run_cell,
    smooth,
)

POLICY = "vllm"
FORMS = ("f1", "f2")


@dataclass(frozen=True, slots=True)
class SmoothGoodput:
    """[SmoothGoodput] Figures 6 and 11."""

    name: str = "smooth-goodput"
    title: str = "Smooth goodput has a best load"
    asked: str = (
        "With ever more requests per second a server makes more tokens until it is full; its users "
        "then wait. Throughput does not see that. Does smooth goodput (tokens less a penalty for "
        "users' waiting) rise, peak inside the sweep and fall, and does the peak move to lower "
        "loads as waiting weighs more?"
    )
    set_up: Sequence[str] = (
        "One A100-80G with vLLM's policy of 2024: whole prompts first, decodes wait meanwhile; at "
        "most 256 requests at once, nobody is ever rejected. All read 5 tokens/s; due times count "
        "from the request's arrival, without an allowance (D0 = 0).",
        f"ShareGPT lengths as fitted; `long` stands for LooGLE, an assumption: prompt "
        f"{LONG_PROMPT}, answer {LONG_OUTPUT}. Poisson arrivals, and the Azure 2023 conversation "
        "trace (arrivals and lengths), stretched in time to each load, slices of the one hour that "
        "begin 8 minutes apart as seeds.",
        "Scored is a window: the first 45 s (long: 300 s) and the tail count for nothing; arrivals "
        "go on to its end. 180 s (long: 1,500 s) of gains are counted: all tokens delivered in the "
        "window, less what all waits grew by in it.",
        "F1 = v·l and F2 = l seconds (the paper does not write f down). Literal: waits of tokens "
        "that came. Censored: also of those still awaited.",
        "Goodput counts tokens of requests whose first token took at most 1 s, or 3 times what the "
        "prompt takes alone, and whose every gap (TBT), or whose mean gap (TPOT), is at most "
        "200 ms, of requests that arrived up to 60 s (long: 300 s) before the window's end.",
    )
    profiles: Sequence[str] = tuple(PROFILES.values())

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """All loads."""
        return cells(SIZES[scope], (POLICY,), RATES_REQ_S)

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One load."""
        return run_cell(cell)

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """Peaks, and where they are."""
        groups = grouped(rows)
        claims = [_interior(groups), _moves_left(groups), _throughput(groups), _classical(groups)]
        missing = [pair for pair in PAIRS if pair not in groups]
        notes = [
            "Peaks are told on the grid of loads that was run, each seed's own; past saturation "
            "queues grow without end, so that values there depend on the window's length, where "
            "peaks do not.",
            "8B on ShareGPT is bound by 256 requests at once, long prompts by KV memory.",
        ]
        if missing:
            notes.append("Not run: " + ", ".join(f"{m} on {d}" for m, d in missing) + ".")
        if any(data == AZURE for _, data in missing):
            notes.append("The Azure trace is read from the folder READAHEAD_DATA names.")
        figures = (
            Figure(
                file="sweep.png",
                caption="Throughput and smooth goodput (F1, literal) against the offered load; "
                "bands are 95 % intervals. Simulated.",
                png=_figure(groups),
            ),
        )
        tables = (_peaks_table(groups), _classical_table(groups))
        return Findings(claims=claims, tables=tables, figures=figures, notes=notes)


EXPERIMENT = SmoothGoodput()

Groups = dict[tuple[str, str], list[Row]]


def grouped(rows: Sequence[Row]) -> Groups:
    """Rows by model and data."""
    found = {(model, data): where(rows, model=model, data=data) for model, data in PAIRS}
    return {pair: kept for pair, kept in found.items() if kept}


def named(pair: tuple[str, str]) -> str:
    """A cell in words."""
    return f"{pair[0]}, {pair[1]}"


def _interior(groups: Groups) -> Claim:
    default = [curve(rows, smooth(form, kind, 2.5)) for rows in groups.values()
               for form in FORMS for kind in KINDS]  # fmt: skip
    every = [curve(rows, smooth(form, kind, alpha)) for rows in groups.values()
             for form in FORMS for kind in KINDS for alpha in ALPHAS]  # fmt: skip
    met, met_all = sum(c.is_interior() for c in default), sum(c.is_interior() for c in every)
    peaks = "; ".join(
        f"{named(pair)} {curve(rows, smooth('f1', 'literal', 2.5)).peaks_req_s.text()}/s"
        for pair, rows in groups.items()
    )
    return Claim(
        finding="Smooth goodput peaks inside the sweep, both ends ≥ 5 % lower (alpha 2.5)",
        paper="rises, peaks, falls [P]; 15 QPS for 8B [S]",
        ours=f"{met} of {len(default)} curves (F1, F2, literal, censored); over all alpha "
        f"{met_all} of {len(every)}. Peaks, F1 literal: {peaks}",
        verdict=_share_verdict(met, len(default)),
        why="" if met == len(default) else "see the table for the curves that do not",
    )


def _moves_left(groups: Groups) -> Claim:
    moved, never_right, total, shown = 0, 0, 0, []
    for pair, rows in groups.items():
        for form in FORMS:
            for kind in KINDS:
                peaks = [curve(rows, smooth(form, kind, a)).peaks_req_s.value for a in ALPHAS]
                total += 1
                moved += peaks[-1] < peaks[0]
                never_right += all(b <= a for a, b in pairwise(peaks))
                if (form, kind) == ("f1", "literal"):
                    shown.append(f"{named(pair)} {peaks[0]:.3g} → {peaks[-1]:.3g}/s")
    return Claim(
        finding="The peak moves to lower loads as alpha grows from 0.5 to 10",
        paper="larger alpha, lower QPS [P]",
        ours=f"lower in {moved} of {total}, never to the right in between in {never_right}; "
        f"F1 literal: {'; '.join(shown)}",
        verdict=_share_verdict(min(moved, never_right), total),
    )


def _throughput(groups: Groups) -> Claim:
    drops = {pair: curve(rows, column("throughput_tok_s")) for pair, rows in groups.items()}
    flat = sum(one.side(-1) < 0.05 for one in drops.values())
    shown = "; ".join(f"{named(pair)} {100 * one.side(-1):.1f} %" for pair, one in drops.items())
    return Claim(
        finding="Throughput has no such peak: at the greatest load < 5 % below its best",
        paper="classical metrics keep rising [P]",
        ours=f"{flat} of {len(drops)}; below the best by {shown}",
        verdict=_share_verdict(flat, len(drops)),
    )


def _classical(groups: Groups) -> Claim:
    shares = {}
    for pair, rows in groups.items():
        best = curve(rows, smooth("f1", "literal", 2.5)).peaks_req_s.value
        shares[pair] = best / _full_req_s(curve(rows, column("throughput_tok_s"))) - 1
    lower = sum(share < 0 for share in shares.values())
    shown = "; ".join(f"{named(pair)} {100 * share:+.0f} %" for pair, share in shares.items())
    return Claim(
        finding="The peak is at a lower load than the least one with 99 % of the best throughput",
        paper="20 % below what classical metrics would pick [S]",
        ours=f"lower in {lower} of {len(shares)}: {shown}",
        verdict=_share_verdict(lower, len(shares)),
    )


def _full_req_s(made: Curve) -> float:
    """The least load at which throughput is as good as at its best: past it the curve is flat."""
    pairs = zip(made.rates_req_s, made.means, strict=True)
    return next(rate for rate, one in pairs if one.value >= 0.99 * made.peak.value)


def _share_verdict(met: int, total: int) -> Verdict:
    if met == total:
        return Verdict.REPRODUCED
    return Verdict.PARTLY if 2 * met >= total else Verdict.NOT


def _peaks_table(groups: Groups) -> Table:
    rows = []
    for pair, kept in groups.items():
        for form in FORMS:
            for kind in KINDS:
                curves = [curve(kept, smooth(form, kind, alpha)) for alpha in ALPHAS]
                default = curves[ALPHAS.index(2.5)]
                rows.append(
                    (named(pair), f"{form.upper()}, {kind}", *(_peak(one) for one in curves),
                     default.peak_values.text())
                )  # fmt: skip
    return Table(
        title="Peaks: requests/s at which smooth goodput is greatest",
        columns=(
            "server",
            "f",
            *(f"alpha {alpha:g}" for alpha in ALPHAS),
            "value at alpha 2.5, tok/s",
        ),
        rows=rows,
        note="* the greatest mean is at an end of the sweep, or an end is less than 5 % below it.",
    )


def _peak(one: Curve) -> str:
    return one.peaks_req_s.text() + ("" if one.is_interior() else " *")


def _classical_table(groups: Groups) -> Table:
    rows = []
    for pair, kept in groups.items():
        peaks = [
            curve(kept, column(name))
            for name in ("throughput_tok_s", "goodput_tbt_tok_s", "goodput_tpot_tok_s")
        ]
        rows.append(
            (
                named(pair),
                peaks[0].peak_values.text(),
                *(f"{one.peaks_req_s.text()} ({one.peak.value:,.0f})" for one in peaks),
                *(
                    f"{capacity_req_s(kept, name):.3g}"
                    for name in ("attained_tbt", "attained_tpot", "attained_reading")
                ),
                curve(kept, smooth("f1", "literal", 2.5)).peaks_req_s.text(),
            )
        )
    return Table(
        title="The classical metrics beside",
        columns=(
            "server", "throughput, tok/s", "its peak, req/s", "goodput TBT, peak",
            "goodput TPOT, peak", "capacity TBT", "capacity TPOT", "capacity reading",
            "peak of smooth goodput",
        ),
        rows=rows,
        note="Peaks in requests/s, with the value in tokens/s in brackets; capacity: requests/s "
        "up to which 90 % of the requests are served as promised. `reading`: nobody waits in "
        "all longer than the first token may take.",
    )  # fmt: skip


def _figure(groups: Groups) -> bytes:
    columns = 2
    count = -(-len(groups) // columns)
    with canvas(height=0.6 + 2.5 * count, columns=columns, rows=count) as drawn:
        for ax, (pair, rows) in zip(drawn.axes, groups.items(), strict=False):
            found = curve(rows, column("throughput_tok_s"))
            x = found.rates_req_s
            line(ax, x, found.means, label="throughput", number=6, dash="--")
            for number, alpha in enumerate(ALPHAS):
                one = curve(rows, smooth("f1", "literal", alpha))
                line(ax, x, one.means, label=f"smooth goodput, alpha = {alpha:g}", number=number)
            ax.set_title(named(pair))
            ax.set_xlabel("offered load, requests/s")
            ax.set_ylabel("tokens/s")
            ax.set_xlim(left=0)
            floor_at(ax, 0.35)
        for ax in drawn.axes[len(groups) :]:
            ax.set_visible(False)
        drawn.legend(3)
        return drawn.png()
