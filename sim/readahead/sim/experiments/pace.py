"""What the pace at which users read changes: the score of a run, and what a server can serve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from readahead.sim.experiments.intervals import Mean, mean, numbers, where
from readahead.sim.experiments.pace_frozen import monotonicity
from readahead.sim.experiments.served import PROFILES, Served
from readahead.sim.experiments.sweeps import (
    SIZES,
    Curve,
    Size,
    curve,
    smooth,
    window_of,
    window_parameters,
)
from readahead.sim.experiments.windows import gained

PACES_TOK_S = (3.0, 5.0, 7.0, 20.0, 30.0)
USUAL_TOK_S = 5.0
TOLD_BY_THE_SUMMARY = (
    (7.0, "V 5 → 7: peak -18 % [S]", -1),
    (3.0, "V 5 → 3: peak +10 % [S]", 1),
)
BLIND, AWARE = "vllm", "readahead"
ALPHA = 2.5
MODEL, DATA = "14B", "ShareGPT"
RATES_REQ_S = (2.0, 4.0, 6.0, 7.5, 8.5, 9.5, 11.0)
PLACES = {Scope.FULL: range(7), Scope.QUICK: (1, 3, 5), Scope.TINY: (2,)}
TOLD_PACES = {Scope.FULL: PACES_TOK_S, Scope.QUICK: (3.0, 5.0, 20.0), Scope.TINY: (5.0, 20.0)}


@dataclass(frozen=True, slots=True)
class Pace:
    """[SmoothGoodput] on V: 3, 5, 7 and 30 tokens/s, and v1's 20."""

    name: str = "pace"
    title: str = "Reading pace: 3, 5, 7, 20 and 30 tokens/s"
    asked: str = (
        "Slower readers need their tokens later. For a run as it was, a lower pace v can only "
        "raise the score; what moves the best load? And does a scheduler that knows v serve more "
        "where people read slowly?"
    )
    set_up: Sequence[str] = (
        "One A100-80G, Qwen2.5-14B, ShareGPT lengths, Poisson arrivals; windows as in "
        "[smooth goodput](../smooth-goodput/README.md).",
        "Blind: `vllm`, which knows nothing of readers. One run per load and seed, scored as if "
        "all read at each pace in turn: the timelines are the same.",
        "Aware: `readahead`, a run of its own for each pace, which every request states. Batches "
        "last as long as its readers have left to read.",
        "F1 (v·l) and F2 (l), alpha = 2.5, D0 = 0.",
    )
    profiles: Sequence[str] = (PROFILES[MODEL],)

    def cells(self, scope: Scope) -> Sequence[Cell]:
        """The blind run at each load, and the aware one at each load and pace."""
        size = SIZES[scope]
        blind = [_cell(size, BLIND, rate, USUAL_TOK_S, seed) for rate, seed in _loads(scope)]
        aware = [
            _cell(size, AWARE, rate, pace, seed)
            for pace in TOLD_PACES[scope]
            for rate, seed in _loads(scope)
        ]
        return [*blind, *aware]

    def run_cell(self, cell: Cell) -> Sequence[Row]:
        """One run; a blind one gives a row for each pace."""
        server = _served(cell)
        run, window = server.lived().run, server.window
        if server.policy == AWARE:
            return [cell.row(scored_pace_tok_s=server.pace_tok_s, **gained(run, window))]
        every = gained(run, window, paces_tok_s=PACES_TOK_S)
        checked = monotonicity(run, window, PACES_TOK_S)
        return [
            cell.row(scored_pace_tok_s=pace, **_of_pace(every, pace), **checked)
            for pace in PACES_TOK_S
        ]

    def conclude(self, rows: Sequence[Row]) -> Findings:
        """The law on frozen timelines, and the peaks."""
        claims = [_frozen(rows), *_peaks(rows), _aware(rows)]
        figure = Figure(
            file="paces.png",
            caption="Smooth goodput (F1, literal, alpha 2.5) against the offered load, by reading "
            "pace: left the same runs scored at each pace, right runs whose scheduler knows it. "
            "Simulated.",
            png=_figure(rows),
        )
        notes = (
            "Above 5 tokens/s the paper's V is a machine's pace or a skimmer's, not that of "
            "somebody who reads.",
            "Under F1 a second of waiting costs v tokens, so that a fast reader's costs more.",
        )
        return Findings(claims=claims, tables=(_table(rows),), figures=(figure,), notes=notes)


EXPERIMENT = Pace()


def _loads(scope: Scope) -> list[tuple[float, int]]:
    seeds = range(SIZES[scope].seeds)
    return [(RATES_REQ_S[place], seed) for place in PLACES[scope] for seed in seeds]


def _cell(size: Size, policy: str, rate_req_s: float, pace_tok_s: float, seed: int) -> Cell:
    window = size.window(DATA)
    return Cell(
        parameters={
            "policy": policy,
            "rate_req_s": rate_req_s,
            "pace_tok_s": pace_tok_s,
            **window_parameters(window),
        },
        seed=seed,
    )


def _served(cell: Cell) -> Served:
    return Served(
        model=MODEL,
        data=DATA,
        policy=cell.text("policy"),
        rate_req_s=cell.number("rate_req_s"),
        pace_tok_s=cell.number("pace_tok_s"),
        window=window_of(cell),
        seed=cell.seed,
    )


def _of_pace(found: Mapping[str, float], pace_tok_s: float) -> dict[str, float]:
    """Of the numbers for all paces those for one, and those that know none."""
    end = f"_v{pace_tok_s:g}"
    own = {name.removesuffix(end): value for name, value in found.items() if name.endswith(end)}
    return {"throughput_tok_s": found["throughput_tok_s"], **own}


def _curves(rows: Sequence[Row], policy: str, form: str = "f1") -> dict[float, Curve]:
    """By pace, those that there are."""
    found = {}
    for pace in PACES_TOK_S:
        kept = where(rows, policy=policy, scored_pace_tok_s=pace)
        if kept:
            found[pace] = curve(kept, smooth(form, "literal", ALPHA))
    return found


def _frozen(rows: Sequence[Row]) -> Claim:
    kept = where(rows, policy=BLIND, scored_pace_tok_s=USUAL_TOK_S)
    compared = sum(numbers(kept, "comparisons"))
    broken = sum(numbers(kept, "violations"))
    return Claim(
        finding="On frozen timelines no request's benefit falls as the pace falls, F0 to F5",
        paper="follows from d_i = i/v; claims to the contrary cannot hold [R]",
        ours=f"{broken:.0f} violations in {compared:,.0f} comparisons",
        verdict=Verdict.REPRODUCED if compared and not broken else Verdict.NOT,
    )


def _peaks(rows: Sequence[Row]) -> list[Claim]:
    """The summary's two numbers, which may mean the peak's load or its value."""
    claims = []
    blind, aware = _curves(rows, BLIND), _curves(rows, AWARE)
    for pace, paper, sign in TOLD_BY_THE_SUMMARY:
        if pace not in aware or USUAL_TOK_S not in aware:
            continue
        changes = {
            f"{who}, {what}": 100 * (of(curves[pace]) / of(curves[USUAL_TOK_S]) - 1)
            for who, curves in (("frozen", blind), ("aware", aware))
            for what, of in (("load", _load), ("value", _value))
        }
        right = sum(sign * change > 0 for change in changes.values())
        wrong = sum(sign * change < -0.5 for change in changes.values())
        verdict = Verdict.REPRODUCED if right == len(changes) else Verdict.PARTLY
        claims.append(
            Claim(
                finding=f"The peak {'rises' if sign > 0 else 'falls'} as v goes from 5 to {pace:g}",
                paper=paper,
                ours="; ".join(f"{name} {change:+.1f} %" for name, change in changes.items()),
                verdict=Verdict.NOT if wrong or not right else verdict,
                why="the sign counts; the summary does not say whether load or value",
            )
        )
    return claims


def _load(one: Curve) -> float:
    return one.peaks_req_s.value


def _value(one: Curve) -> float:
    return one.peak_values.value


def _aware(rows: Sequence[Row]) -> Claim:
    blind, aware = _curves(rows, BLIND), _curves(rows, AWARE)
    gains = {pace: _value(one) / _value(blind[pace]) - 1 for pace, one in aware.items()}
    values = [_value(one) for one in aware.values()]
    falls = all(later <= before * 1.001 for before, later in pairwise(values))
    shown = "; ".join(f"v {pace:g}: {100 * gain:+.1f} %" for pace, gain in gains.items())
    slow = [gain for pace, gain in gains.items() if pace <= USUAL_TOK_S]
    return Claim(
        finding="A scheduler that knows v serves more the slower people read",
        paper="V is to be calibrated to the users [P]",
        ours=f"best smooth goodput {'falls' if falls else 'does not fall'} as v rises; against the "
        f"blind one at its best: {shown}",
        verdict=Verdict.REPRODUCED
        if falls and min(slow) > 0
        else (Verdict.PARTLY if falls else Verdict.NOT),
    )


def _table(rows: Sequence[Row]) -> Table:
    lines = []
    for pace in PACES_TOK_S:
        for form in ("f1", "f2"):
            blind, aware = _curves(rows, BLIND, form), _curves(rows, AWARE, form)
            if pace not in blind:
                continue
            cells = [_peak(blind[pace]), blind[pace].peak_values.text()]
            if pace in aware:
                cells += [_peak(aware[pace]), aware[pace].peak_values.text()]
            else:
                cells += ["-", "-"]
            lines.append((f"{pace:g}", form.upper(), *cells))
    made = mean(numbers(where(rows, policy=BLIND, rate_req_s=RATES_REQ_S[-1]), "throughput_tok_s"))
    return Table(
        title="Peaks by pace",
        columns=("v, tok/s", "f", "blind, req/s", "blind, tok/s", "aware, req/s", "aware, tok/s"),
        rows=lines,
        note=_note(made),
    )


def _note(made: Mean) -> str:
    note = "Each seed's own greatest value, and the load where it has it; * at an end of the sweep."
    return note + (
        f" Blind throughput at the greatest load: {made.text()} tok/s." if made.count else ""
    )


def _peak(one: Curve) -> str:
    is_inside = 0 < one.place < len(one.means) - 1
    return one.peaks_req_s.text() + ("" if is_inside else " *")


def _figure(rows: Sequence[Row]) -> bytes:
    with canvas(height=3.5, columns=2) as drawn:
        panels = (("same runs, scored at v", BLIND), ("scheduler knows v", AWARE))
        for ax, (title, policy) in zip(drawn.axes, panels, strict=True):
            for pace, one in _curves(rows, policy).items():
                place = PACES_TOK_S.index(pace)
                line(ax, one.rates_req_s, one.means, label=f"v = {pace:g} tok/s", number=place)
            ax.set_title(title)
            ax.set_xlabel("offered load, requests/s")
            ax.set_xlim(left=0)
            floor_at(ax, 0.3)
        drawn.axes[0].set_ylabel("smooth goodput, tokens/s")
        low, high = (
            pick(ax.get_ylim()[side] for ax in drawn.axes) for side, pick in ((0, min), (1, max))
        )
        for ax in drawn.axes:
            ax.set_ylim(low, high)
        drawn.legend(5)
        return drawn.png()
