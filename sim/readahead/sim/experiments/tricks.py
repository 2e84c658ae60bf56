"""What the output delay and proactive abandonment do to each metric, on simulated servers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.reading.benefit import Form
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
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import distinct, mean, number, numbers, paired, where
from readahead.sim.experiments.served import PATIENCE_S, PROFILES, Served
from readahead.sim.experiments.sweeps import (
    SIZES,
    capacity_req_s,
    cells,
    column,
    curve,
    smooth,
    window_of,
)
from readahead.sim.experiments.tricks_applied import TBT_S, delayed, stopping
from readahead.sim.experiments.tricks_threshold import LENGTHS_TOKENS, thresholds
from readahead.sim.experiments.windows import gained, latencies

HONEST, ABANDONING = "honest", "abandoning"
ALPHA = 2.5
FORMS = (Form.F1, Form.F2, Form.F3, Form.F4)
RATES_REQ_S = {("8B", "ShareGPT"): (11, 13, 14, 16, 20)}
PLACES = {Scope.FULL: range(5), Scope.QUICK: (1, 3), Scope.TINY: (1, 4)}


@dataclass(frozen=True, slots=True)
class Tricks:
    """[SmoothGoodput] section 5.3 and Figure 9, and what its own metric says."""

    name: str = "tricks"
    title: str = "Two tricks: output delay and abandonment"
    asked: str = (
        "A server may hold tokens back to make the gaps between them even, or drop requests that "
        "have missed their promise. Both better the usual metrics. What do users get, what does "
        "smooth goodput say, and which forms of its penalty f pay for stopping?"
    )
    set_up: Sequence[str] = (
        "One A100-80G, Llama-3.1-8B, ShareGPT lengths, Poisson arrivals, whole prompts first "
        "(`vllm`); windows and readers as in [smooth goodput](../smooth-goodput/README.md).",
        f"Output delay: the honest run's timelines, of 300 requests of each window, through "
        f"`core`'s own delay with a TBT threshold of {1000 * TBT_S:.0f} ms. It needs no second "
        "run: a held token was made when it was made.",
        f"Abandonment is simulated, as it frees the server: a request whose user has waited "
        f"{PATIENCE_S:g} s at one time is cancelled there, in the queue or in the middle. The "
        "simulated users do it, since the router has no such policy; to the engine it is the same "
        "cancel.",
        f"The promise: no token later than {PATIENCE_S:g} s + i / 5 tokens/s after the arrival.",
    )
    profiles: Sequence[str] = (PROFILES["8B"],)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """Honest and abandoning at all loads."""
        kinds = (HONEST, ABANDONING)
        return cells(SIZES[scope], kinds, RATES_REQ_S, places=PLACES[scope])

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run; the honest ones are also delayed."""
        abandons = cell.text("policy") == ABANDONING
        server = Served(
            model=cell.text("model"),
            data=cell.text("data"),
            policy="vllm",
            rate_req_s=cell.number("rate_req_s"),
            window=window_of(cell),
            seed=cell.seed,
            readers=(
                {"impatient_share": 1.0, "patience": {"median_s": PATIENCE_S, "sigma": 0.0}}
                if abandons
                else {}
            ),
        )
        run, window = server.lived().run, server.window
        found = {**gained(run, window), **latencies(run, window, patience_s=server.patience_s(run))}
        if not abandons:
            found |= delayed(run, window)
            found |= stopping(run, window, forms=FORMS, alpha=ALPHA)
        return [cell.row(**found)]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """What each metric says."""
        honest, dropped = where(rows, policy=HONEST), where(rows, policy=ABANDONING)
        claims = (
            _delay(honest),
            _detector(honest),
            _abandonment(honest, dropped),
            _rewarded(honest, dropped),
            _threshold(),
        )
        figure = Figure(
            file="abandonment.png",
            caption="What dropping late requests does to each metric, against the offered load. "
            "Simulated.",
            png=_figure(honest, dropped),
        )
        tables = (
            _delay_table(honest),
            _abandonment_table(honest, dropped),
            _stop_table(honest),
            _threshold_table(),
        )
        notes = (
            "Literal smooth goodput charges a wait when the late token comes; whoever is dropped "
            "costs nothing then. Censored, he costs what he waited.",
            "Dropping does good to those who are served instead: in overload somebody must wait. "
            "The metric cannot know that a server drops for the numbers' sake; the report of "
            "`readahead score` names it.",
        )
        return Findings(claims=claims, tables=tables, figures=(figure,), notes=notes)


EXPERIMENT = Tricks()


def _delay(honest: Sequence[Row]) -> Claim:
    before, after = (mean(numbers(honest, f"{name}_tbt_met")) for name in ("honest", "delayed"))
    largest = [
        number(row, "delayed_tbt_max_p99_s") / number(row, "honest_tbt_max_p99_s") - 1
        for row in honest
    ]
    better = sum(number(row, "delay_idle_improved") for row in honest)
    requests = sum(number(row, "delay_requests") for row in honest)
    gain = mean(numbers(honest, "delay_benefit_change"))
    held = after.value >= 1.05 * before.value and not better and gain.value <= 0
    return Claim(
        finding="Output delay: TBT improves (≥ 5 %), nobody's idle time does, nor smooth goodput",
        paper="TBT -10 %, idle unchanged [S]",
        ours=f"TBT promise kept by {before.text(scale=100)} → {after.text(scale=100)} % of users; "
        f"longest gap, p99, {mean(largest).text(scale=100)} %; idle shorter for {better:.0f} of "
        f"{requests:,.0f} users; benefit {gain.text()} tokens per request",
        verdict=Verdict.REPRODUCED if held else Verdict.NOT,
    )


def _detector(honest: Sequence[Row]) -> Claim:
    recall = mean(numbers(honest, "delay_found_share"))
    false = mean(numbers(honest, "honest_found_share"))
    return Claim(
        finding="Our detector names the delay (recall ≥ 95 %), and no honest server",
        paper="-",
        ours=f"recall {recall.text(scale=100)} % of requests with 5 or more held tokens; "
        f"{false.text(scale=100)} % of honest ones named",
        verdict=Verdict.REPRODUCED if recall.value >= 0.95 and not false.value else Verdict.NOT,
    )


def _saturated(honest: Sequence[Row]) -> list[float]:
    """Loads past what the honest server can do."""
    limit = capacity_req_s(honest, "attained_reading")
    return [rate for rate in _rates(honest) if rate > limit]


def _rates(rows: Sequence[Row]) -> list[float]:
    return [float(rate) for rate in distinct(rows, "rate_req_s") if isinstance(rate, int | float)]


def _abandonment(honest: Sequence[Row], dropped: Sequence[Row]) -> Claim:
    past = _saturated(honest)
    met, shown = 0, []
    for rate in past:
        pair = where(honest, rate_req_s=rate), where(dropped, rate_req_s=rate)
        better = paired(*pair, column("goodput_reading_tok_s"))
        met += better.low > 0
        before, after = (mean(numbers(rows, "goodput_reading_tok_s")) for rows in pair)
        shown.append(f"{rate:g}/s {before.value:,.0f} → {after.value:,.0f} tok/s")
    return Claim(
        finding="Past saturation abandonment raises classical goodput",
        paper="goodput some 10 % above smooth goodput at QPS > 15 [S]",
        ours=f"at {met} of {len(past)} loads: {'; '.join(shown)}",
        verdict=Verdict.REPRODUCED
        if past and met == len(past)
        else Verdict.PARTLY
        if met
        else Verdict.NOT,
    )


def _rewarded(honest: Sequence[Row], dropped: Sequence[Row]) -> Claim:
    past = _saturated(honest)
    shown, rewarded, punished = [], 0, 0
    for form in ("f1", "f2", "f4"):
        changes = []
        for rate in past:
            pair = where(honest, rate_req_s=rate), where(dropped, rate_req_s=rate)
            changes.append(paired(*pair, smooth(form, "censored", ALPHA)))
        ups = sum(one.low > 0 for one in changes)
        rewarded, punished = rewarded + ups, punished + sum(one.high <= 0 for one in changes)
        gains = ", ".join(one.text() for one in changes)
        shown.append(f"{form.upper()} higher at {ups} of {len(past)} ({gains} tok/s)")
    if rewarded:
        verdict, why = (
            Verdict.NOT,
            (
                "in overload it pays under forms that charge for waiting: those who are dropped "
                "stop waiting, and those behind them wait less"
            ),
        )
    elif punished == 3 * len(past) and past:
        verdict, why = Verdict.REPRODUCED, ""
    else:
        verdict, why = Verdict.PARTLY, "the intervals hold both signs"
    return Claim(
        finding="Smooth goodput does not pay for abandonment",
        paper="all requests contribute: no incentive [P]",
        ours=f"censored, past saturation: {'; '.join(shown)}",
        verdict=verdict,
        why=why,
    )


def _threshold() -> Claim:
    found = [one for one in thresholds(ALPHA) if one.formula_tok_s is not None]
    worst = max(abs(one.error) for one in found)
    shown = "; ".join(
        f"{one.form} {one.formula_tok_s:.2f} (found {one.found_tok_s:.2f})"
        for one in found
        if one.tokens == LENGTHS_TOKENS[0] and one.formula_tok_s is not None
    )
    return Claim(
        finding="Below a rate g* = 1/(1/(alpha c) + 1/v) a request is worth more unserved, ± 5 %",
        paper="F1 3.57, F2 1.67 tokens/s at alpha 2.5, v 5 [R]",
        ours=f"{shown}; largest error {100 * worst:.1f} %. F4 has none: the length decides",
        verdict=Verdict.REPRODUCED if worst <= 0.05 else Verdict.NOT,
    )


def _delay_table(honest: Sequence[Row]) -> Table:
    rows = []
    for rate in _rates(honest):
        kept = where(honest, rate_req_s=rate)
        rows.append(
            (
                f"{rate:g}",
                *(
                    mean(numbers(kept, f"{who}_{what}")).text(scale=scale)
                    for what, scale in (("tbt_p99_s", 1e3), ("tbt_max_p99_s", 1e3),
                                        ("tbt_met", 1e2), ("idle_mean_s", 1.0))
                    for who in ("honest", "delayed")
                ),
            )
        )  # fmt: skip
    return Table(
        title="Output delay",
        columns=(
            "req/s", "TBT p99, ms", "delayed", "longest gap p99, ms", "delayed",
            "TBT promise kept, %", "delayed", "idle, s", "delayed",
        ),
        rows=rows,
        note=f"The TBT promise: no gap above {1000 * TBT_S:.0f} ms. p99 over all gaps rises where "
        "the server was faster than the threshold: every gap becomes as long as that.",
    )  # fmt: skip


def _abandonment_table(honest: Sequence[Row], dropped: Sequence[Row]) -> Table:
    rows = []
    for rate in _rates(honest):
        for name, every in (("honest", honest), ("abandoning", dropped)):
            kept = where(every, rate_req_s=rate)
            rows.append(
                (
                    f"{rate:g}, {name}",
                    mean(numbers(kept, "attained_reading")).text(scale=100),
                    mean(numbers(kept, "goodput_reading_tok_s")).text(),
                    mean(numbers(kept, "cut_off_share")).text(scale=100),
                    *(
                        mean(smooth(form, kind, ALPHA)(row) for row in kept).text()
                        for form in ("f1", "f2", "f4")
                        for kind in ("literal", "censored")
                    ),
                )
            )
    return Table(
        title="Abandonment, alpha 2.5",
        columns=(
            "req/s", "promise kept, %", "goodput, tok/s", "dropped or cut off, %",
            "F1", "F1 censored", "F2", "F2 censored", "F4", "F4 censored",
        ),
        rows=rows,
        note="F1 to F4: smooth goodput, tokens/s.",
    )  # fmt: skip


def _stop_table(honest: Sequence[Row]) -> Table:
    rows = []
    for rate in _rates(honest):
        kept = where(honest, rate_req_s=rate)
        shares = (mean(numbers(kept, f"stop_share_{form.value.lower()}")) for form in FORMS)
        rows.append((f"{rate:g}", *(one.text(scale=100) for one in shares)))
    return Table(
        title="Finished answers that would have scored more if stopped earlier, %",
        columns=("req/s", *(form.value for form in FORMS)),
        rows=rows,
        note="In hindsight, at the best token (or before the first), each request by itself, "
        "literal, alpha 2.5, D0 = 0. A penalty that is bounded and depends on the wait alone (F4) "
        "still says drop to those whose whole answer is shorter than the penalty.",
    )


def _threshold_table() -> Table:
    rows = [
        (
            one.form,
            f"{one.tokens}",
            "-" if one.formula_tok_s is None else f"{one.formula_tok_s:.3f}",
            f"{one.found_tok_s:.3f}" if one.found_tok_s else "always finish",
        )
        for one in thresholds(ALPHA)
    ]
    return Table(
        title="The rate below which not serving scores more, alpha 2.5, v 5",
        columns=("f", "answer, tokens", "formula, tokens/s", "found, tokens/s"),
        rows=rows,
        note="Found by bisection over timelines of constant rate, scored by `core`.",
    )


def _figure(honest: Sequence[Row], dropped: Sequence[Row]) -> bytes:
    panels = (
        ("goodput, tok/s", column("goodput_reading_tok_s")),
        ("smooth goodput F1, tok/s", smooth("f1", "censored", ALPHA)),
        ("smooth goodput F4, tok/s", smooth("f4", "censored", ALPHA)),
    )
    with canvas(height=3.1, columns=3) as drawn:
        for ax, (title, of) in zip(drawn.axes, panels, strict=True):
            for place, (name, rows) in enumerate((("honest", honest), ("abandoning", dropped))):
                one = curve(rows, of)
                ax.errorbar(
                    one.rates_req_s,
                    [value.value for value in one.means],
                    yerr=[value.half for value in one.means],
                    color=COLOURS[place],
                    marker=MARKERS[place],
                    capsize=2,
                    label=name,
                )
            ax.set_title(title)
            ax.set_xlabel("offered load, req/s")
        drawn.legend(2)
        return drawn.png()
