"""What the migration experiment concludes."""

from __future__ import annotations

from collections.abc import Sequence

from readahead.sim.experiments.experiment import Claim, Verdict
from readahead.sim.experiments.migration_cells import LOADS
from readahead.sim.experiments.migration_compared import SAVED_LEAST, Compared


def claims(found: Sequence[Compared]) -> list[Claim]:
    """All of them."""
    return [_saved(found), _against_every_knob(found), _against_none(found), _cooldown(found)]


def _saved(found: Sequence[Compared]) -> Claim:
    rivals = [one for one in found if one.mean(one.load, "moves").value]
    met = [one for one in rivals if _is_met(one, one.load)]
    shown = "; ".join(f"{one.words}: {_against(one, one.load)}" for one in rivals)
    idle = [one.words for one in found if one not in rivals]
    return Claim(
        finding="`need` makes ≥ 30 % fewer moves than `load` with its best knobs, at equal or "
        "better smooth goodput (F1, F2: within 1 %) and p99 idle (within 5 % or 0.05 s)",
        paper="30 % fewer migration events [S]",
        ours=f"{len(met)} of {len(rivals)} situations in which `load` moves at all. {shown}",
        verdict=_verdict(len(met), len(rivals)),
        why=f"`load` at its best never moves here: {', '.join(idle)}" if idle else "",
    )


def _against_every_knob(found: Sequence[Compared]) -> Claim:
    pairs = [(one, rule) for one in found for rule in LOADS if one.mean(rule, "moves").value]
    met = [(one, rule) for one, rule in pairs if _is_met(one, rule)]
    failed = "; ".join(
        f"{one.words}, `{rule}`: {_against(one, rule)}"
        for one, rule in pairs
        if not _is_met(one, rule)
    )
    return Claim(
        finding="The same against `load` with whatever knobs that make it move",
        paper="-",
        ours=f"{len(met)} of {len(pairs)} pairs of situation and knobs"
        + (f". Not: {failed}" if failed else ""),
        verdict=_verdict(len(met), len(pairs)),
    )


def _against_none(found: Sequence[Compared]) -> Claim:
    """The question behind the question: is any migration worth it?"""
    worse = [one for one in found if not one.is_no_worse("need", "none")]
    shown = "; ".join(
        f"{one.words}: F1 {_change(one, 'need', 'none')}, p99 idle {_idle(one, 'need', 'none')}"
        for one in found
        if one.mean("need", "moves").value
    )
    return Claim(
        finding="`need` is never worse than no migration at all",
        paper="-",
        ours=f"not worse in {len(found) - len(worse)} of {len(found)} situations. Where it "
        f"moves: {shown or 'nowhere'}",
        verdict=_verdict(len(found) - len(worse), len(found)),
        why="worse: " + ", ".join(one.words for one in worse) if worse else "",
    )


def _cooldown(found: Sequence[Compared]) -> Claim:
    pairs = [
        (one, rule, other)
        for one in found
        for rule, other in (("need", "need, no cooldown"), ("load 4096", "load, no cooldown"))
        if one.mean(other, "moves").value
    ]
    more = [
        f"{one.words}, `{rule}`: {one.mean(other, 'moves').text()} moves for "
        f"{one.mean(rule, 'moves').text()}"
        for one, rule, other in pairs
    ]
    churns = [
        one
        for one, rule, other in pairs
        if one.less(other, rule, "moves").low > 0
        and one.mean(other, "moves").value > 1.3 * one.mean(rule, "moves").value
    ]
    return Claim(
        finding="Without a cooldown (10 s) the same requests move again and again",
        paper="-",
        ours=f"> 1.3 times the moves in {len(churns)} of {len(pairs)} pairs. {'; '.join(more)}",
        verdict=_verdict(len(churns), len(pairs)),
    )


def _is_met(one: Compared, rule: str) -> bool:
    saved = one.saved("need", rule)
    return saved is not None and saved >= SAVED_LEAST and one.is_no_worse("need", rule)


def _against(one: Compared, rule: str) -> str:
    saved = one.saved("need", rule)
    assert saved is not None
    moves = f"{100 * saved:.0f} % fewer" if saved >= 0 else f"{1 - saved:.1f} times as many"
    return f"{moves}, F1 {_change(one, 'need', rule)}, p99 idle {_idle(one, 'need', rule)}"


def _change(one: Compared, rule: str, other: str) -> str:
    base = one.mean(other, "f1_literal").value
    less = one.less(rule, other, "f1_literal")
    if not base:
        return less.text()
    return f"{100 * less.value / base:+.1f} ± {100 * less.half / abs(base):.1f} %"


def _idle(one: Compared, rule: str, other: str) -> str:
    less = one.less(rule, other, "idle_p99_s")
    return f"{less.value:+.2f} ± {less.half:.2f} s"


def _verdict(met: int, total: int) -> Verdict:
    if not total:
        return Verdict.NOT_RUN
    if met == total:
        return Verdict.REPRODUCED
    return Verdict.PARTLY if met else Verdict.NOT
