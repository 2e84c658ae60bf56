"""Tables and the figure of the migration experiment."""

from __future__ import annotations

from collections.abc import Sequence

from readahead.sim.experiments.experiment import Table
from readahead.sim.experiments.figures import COLOURS, MARKERS, canvas
from readahead.sim.experiments.intervals import Mean, mean, numbers, where
from readahead.sim.experiments.migration_cells import LOADS, RULES
from readahead.sim.experiments.migration_compared import Compared

COLUMNS = {
    "moves": "moves",
    "f1_literal": "F1, tok/s",
    "f1_censored": "F1 censored",
    "f2_literal": "F2, tok/s",
    "idle_p99_s": "p99 idle, s",
    "ttft_p99_s": "p99 TTFT, s",
    "attained_reading": "reading attained",
    "attained_slo": "SLO attained",
    "preemptions": "preemptions",
}


def tables(found: Sequence[Compared]) -> list[Table]:
    """All of them."""
    made = [_main(found), _knobs(found)]
    drained = [one for one in found if one.of("none") and "emptied_s" in one.of("none")[0]]
    return [*made, _drained(drained)] if drained else made


def _main(found: Sequence[Compared]) -> Table:
    rows = []
    for one in found:
        for rule in _shown(one):
            cells = [one.mean(rule, name).text() for name in COLUMNS]
            rows.append((one.words, f"`{rule}`", *cells))
    return Table(
        title="Rules side by side",
        columns=("situation", "rule", *COLUMNS.values()),
        rows=rows,
        note="`load` with the knobs that were best on the tuning seeds. Reading attained: nobody "
        "waits in all longer than 1 s, or three times what the prompt takes alone. SLO: that of "
        "the scenario (first token within 3 or 5 times what it takes alone, then 50 or 100 ms a "
        "token).",
    )


def _shown(one: Compared) -> list[str]:
    return [rule for rule in RULES if rule not in LOADS or rule == one.load]


def _knobs(found: Sequence[Compared]) -> Table:
    rows = []
    for one in found:
        for rule in LOADS:
            tried = where(one.tuning, rule=rule)
            values = [mean(numbers(tried, name)) for name in ("f1_literal", "idle_p99_s", "moves")]
            mark = " (taken)" if rule == one.load else ""
            shown = [f"{value.value:,.4g}" for value in values]
            rows.append((one.words, f"`{rule}`{mark}", *shown))
    return Table(
        title="The load trigger's knobs, on the tuning seeds",
        columns=("situation", "rule", "F1, tok/s", "p99 idle, s", "moves"),
        rows=rows,
    )


def _drained(found: Sequence[Compared]) -> Table:
    rows = [
        (f"`{rule}`", one.mean(rule, "emptied_s").text(), one.mean(rule, "moves").text())
        for one in found
        for rule in _shown(one)
    ]
    return Table(
        title="How long a drained worker takes to be empty",
        columns=("rule", "seconds", "moves"),
        rows=rows,
    )


def figure(found: Sequence[Compared]) -> bytes:
    """Moves on the left, what they brought on the right."""
    places = [-place for place in range(len(found))]
    with canvas(height=1.6 + 0.55 * len(found), columns=2) as drawn:
        moves, gains = drawn.axes
        for number, rule in enumerate(("need", "cover", "load")):
            shift = 0.22 * (number - 1)
            named = [rule if rule != "load" else one.load for one in found]
            at = [place - shift for place in places]
            counts = [one.mean(name, "moves") for one, name in zip(found, named, strict=True)]
            changes = [_percent(one, name) for one, name in zip(found, named, strict=True)]
            for ax, means in ((moves, counts), (gains, changes)):
                ax.errorbar(
                    [one.value for one in means],
                    at,
                    xerr=[_half(one) for one in means],
                    color=COLOURS[number],
                    fmt=MARKERS[number],
                    label=rule,
                )
        moves.set_xscale("symlog", linthresh=10)
        moves.set_xlim(left=-1)
        moves.set_xlabel("moves in a run")
        moves.set_yticks(places, [_wrapped(one.words) for one in found])
        gains.set_yticks(places, [])
        gains.axvline(0.0, color="#24292f", linewidth=0.8)
        gains.set_xlabel("F1 against no migration, %")
        drawn.legend(3)
        return drawn.png()


def _half(one: Mean) -> float:
    return one.half if one.half == one.half else 0.0


def _percent(one: Compared, rule: str) -> Mean:
    base = abs(one.mean("none", "f1_literal").value) or 1.0
    less = one.less(rule, "none", "f1_literal")
    return Mean(value=100 * less.value / base, half=100 * less.half / base, count=less.count)


def _wrapped(words: str) -> str:
    first, comma, rest = words.partition(", ")
    return f"{first}{comma.strip()}\n{rest}" if rest else first
