"""Soft admission: which new requests to accept so that every promise is kept.

Ref: [SLOs-Serve] Algorithm 1.
Differs: a state is replaced only by one that has no less value and spare budget, no more memory,
    and whose end is taken into account; what runs is kept whatever happens; a prompt that runs
    and cannot be in time any more is promised again, for later, and does not decline all others.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.planning.sacrifice import Job, sacrifice_set
from readahead.core.planning.slos.chain import Item, State, chained, extended, joined, pruned
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Counts, Load, Plan, Promise, Prompt

STEPS_MAX = 1_000
"""States after which the search gives up: some 7 ms of one processor core."""

_CLOSE = 1e-9
_MUST = 1e6
"""What it is worth to keep one who runs, beside any number of new ones."""
_SETS_MAX = 60
"""Sets that the sacrifice set is improved by."""


def admit(
    new: Sequence[Prompt], load: Load, budget: PrefillBudget, *, steps_max: int = STEPS_MAX
) -> Plan:
    """The accepted set of greatest value with which every promise can be kept, and the plan.

    In the order of due times, over the accepted requests by tier, states that no other replaces
    in value, memory, spare budget and end; those are dropped that cannot come to more value than
    the greedy rule's set has, even if requests could be accepted in part. Where more than
    `steps_max` states would be looked at, the answer is the better one of that set and of the
    sacrifice set, as far as its promises can be kept in the budget.

    Greedy rule: first due first, everybody joins; whenever the promises so far cannot all be kept,
    the one among them is declined that takes most of budget and free blocks for its value.

    Args:
        new: requests to decide about, in any order.
        load: what runs. Its tiers are those of `budget`.
    """
    kept = _kept(load, budget)
    if kept is None:
        return _overloaded()
    start = State(0.0, 0, 0.0, 0.0, load.decoding)
    asked = sorted((_item(each, budget, is_new=True) for each in new), key=_order)
    search = _Search(start, kept, asked, load.blocks_free, budget)
    best = search.greedy()
    is_whole = best.value >= sum(item.prompt.value for item in asked) - _CLOSE
    if not is_whole:
        better = search.exact(best, steps_max)
        if better is None:
            best = max(best, search.sacrificing(), key=lambda each: each.value)
            return _plan(best, budget, steps=search.steps, is_greedy=True)
        best = better
    return _plan(best, budget, steps=search.steps, is_greedy=False)


def _item(prompt: Prompt, budget: PrefillBudget, *, is_new: bool) -> Item:
    return Item(prompt, prompt.due_s, budget.demand_tokens(prompt), is_new)


def _order(item: Item) -> tuple[float, bool, str]:
    return (item.due_s, item.is_new, item.prompt.request_id)


def _kept(load: Load, budget: PrefillBudget) -> list[Item] | None:
    """What runs and is not computed, with times at which all of it can be; None: overload.

    Those that cannot be in time follow the others, first due first, each as soon as it can.
    """
    if any(load.decoding) and budget.line(load.decoding).tokens_per_s < 0:
        return None
    states = [State(0.0, 0, 0.0, 0.0, load.decoding)]
    kept: list[Item] = []
    late: list[Item] = []
    for item in sorted((_item(each, budget, is_new=False) for each in load.prompts), key=_order):
        longer = chained(states, item, budget)
        if longer:
            states = longer
            kept.append(item)
        else:
            late.append(item)
    for item in late:
        state = max(states, key=lambda each: (each.spare_tokens, -each.end_s))
        line = budget.line(state.counts)
        if line.tokens_per_s <= 0:
            return None
        missing = max(0.0, item.demand_tokens - state.spare_tokens) + line.cut_tokens
        due_s = state.end_s + missing / line.tokens_per_s * (1 + _CLOSE)
        last_s = max((each.due_s for each in kept), default=0.0)
        kept.append(item._replace(due_s=max(due_s, last_s, item.due_s) + _CLOSE))
        states = chained([state], kept[-1], budget)
        if not states:
            return None
    return kept


class _Search:
    """One round: promises that must be kept, and requests to choose from."""

    def __init__(
        self,
        start: State,
        kept: list[Item],
        asked: list[Item],
        blocks_free: int,
        budget: PrefillBudget,
    ) -> None:
        self.start, self.kept, self.asked = start, kept, asked
        self.budget, self.steps = budget, 0
        self.blocks_free = max(blocks_free, sum(item.prompt.blocks for item in kept))
        self.items = sorted([*kept, *asked], key=_order)
        self.is_whole_valued = all(item.prompt.value.is_integer() for item in asked)

    def greedy(self) -> State:
        """The greedy rule's set."""
        blocks = self.blocks_free - sum(item.prompt.blocks for item in self.kept)
        items, ways, index = list(self.items), [[self.start]], 0
        while index < len(items):
            item = items[index]
            longer = chained(ways[index], item, self.budget)
            joining = item.prompt.blocks if item.is_new else 0
            if longer and joining <= blocks:
                ways.append(longer)
                blocks -= joining
                index += 1
                continue
            worst = max(
                (each for each in range(index + 1) if items[each].is_new),
                key=lambda each: self._price(items[each]),
            )
            blocks += sum(each.prompt.blocks for each in items[worst:index] if each.is_new)
            del items[worst], ways[worst + 1 :]
            index = worst
        return max(ways[-1], key=lambda each: each.spare_tokens)

    def _price(self, item: Item) -> tuple[float, float]:
        """What accepting it takes for each unit of value."""
        last_s = max(self.items[-1].due_s, _CLOSE)
        rate = max(self.budget.line(self.start.counts).tokens_per_s, _CLOSE)
        share = item.demand_tokens / (rate * last_s) + item.prompt.blocks / (self.blocks_free + 1)
        return (share / max(item.prompt.value, _CLOSE), item.due_s)

    def sacrificing(self) -> State:
        """The sacrifice set's, as far as these promises can be kept one after the other."""
        line, tiers = self.budget.line(self.start.counts), range(len(self.start.counts))
        rate = max(line.tokens_per_s, _CLOSE)
        drags = [
            max(0.0, 1 - self.budget.line(joined(self.start.counts, tier)).tokens_per_s / rate)
            for tier in tiers
        ]
        jobs = [
            Job(
                item.due_s,
                (item.demand_tokens + line.cut_tokens) / rate,
                item.prompt.value if item.is_new else _MUST,
                item.prompt.blocks,
                drags[item.prompt.tier],
            )
            for item in self.items
        ]
        kept = set(sacrifice_set(jobs, blocks_free=self.blocks_free, steps_max=_SETS_MAX).kept)
        ways = [self.start]
        blocks = self.blocks_free - sum([i.prompt.blocks for i in self.kept])
        for index, item in enumerate(self.items):
            joining = item.prompt.blocks if item.is_new else 0
            if item.is_new and (index not in kept or joining > blocks):
                continue
            longer = chained(ways, item, self.budget)
            if longer:
                ways, blocks = longer, blocks - joining
            elif not item.is_new:
                return self.start  # somebody who runs would be dropped
        return max(ways, key=lambda each: each.spare_tokens)

    def exact(self, best: State, steps_max: int) -> State | None:
        """The best set; None where the limit is met."""
        least = best.value + 2 * _CLOSE
        bounds = _Bounds(self.items, self.blocks_free)
        frontier: dict[Counts, list[State]] = {self.start.counts: [self.start]}
        for index, item in enumerate(self.items):
            bound = bounds.behind(index)
            grown: dict[Counts, list[State]] = {}
            for counts, states in frontier.items():
                self.steps += len(states)
                if self.steps > steps_max:
                    return None
                if item.is_new:
                    self._keep(grown, counts, states, bound, least)
                room = self.blocks_free - item.prompt.blocks
                fitting = [state for state in states if state.blocks <= room]
                if fitting and (longer := extended(fitting, item, self.budget)):
                    self._keep(grown, longer[0].counts, longer, bound, least)
            frontier = {
                counts: pruned(states, self.budget.line(counts)) for counts, states in grown.items()
            }
        ends = [state for states in frontier.values() for state in states]
        return max([best, *ends], key=lambda each: each.value)

    def _keep(
        self,
        grown: dict[Counts, list[State]],
        counts: Counts,
        states: list[State],
        bound: _Bound,
        least: float,
    ) -> None:
        """Those that may come to more than `least`."""
        rate, is_whole = self.budget.line(counts).tokens_per_s, self.is_whole_valued
        kept = []
        for state in states:
            most = state.value + bound.value(state, rate) + _CLOSE
            if (math.floor(most) if is_whole else most) > least:
                kept.append(state)
        if kept:
            grown.setdefault(counts, []).extend(kept)


class _Bounds:
    """The bounds of one round, which differ by what is still to come."""

    def __init__(self, items: list[Item], blocks_free: int) -> None:
        self.items, self.blocks_free = items, blocks_free
        new = [(index, item) for index, item in enumerate(items) if item.is_new]
        self.tokens = _by_price([(i, item.demand_tokens, item.prompt.value) for i, item in new])
        self.blocks = _by_price([(i, item.prompt.blocks, item.prompt.value) for i, item in new])

    def behind(self, index: int) -> _Bound:
        """For those behind this one."""
        items = self.items
        kept = [item for item in items[index + 1 :] if not item.is_new]
        return _Bound(
            last_s=items[-1].due_s,
            kept_tokens=sum([item.demand_tokens for item in kept]),
            blocks_free=self.blocks_free - sum([item.prompt.blocks for item in kept]),
            by_tokens=_Fraction([each for each in self.tokens if each[0] > index]),
            by_blocks=_Fraction([each for each in self.blocks if each[0] > index]),
        )


_Piece = tuple[int, float, float]
"""Index, size, value."""


def _by_price(pieces: list[_Piece]) -> list[_Piece]:
    return sorted(pieces, key=lambda each: each[1] / each[2] if each[2] else math.inf)


@dataclass(frozen=True, slots=True)
class _Bound:
    """Most value that the items still to come can add, if a part of one could be accepted."""

    last_s: float
    kept_tokens: float
    blocks_free: int
    by_tokens: _Fraction
    by_blocks: _Fraction

    def value(self, state: State, rate: float) -> float:
        """For what follows this state, at no more than so many prompt tokens a second."""
        tokens = state.spare_tokens + rate * (self.last_s - state.end_s) - self.kept_tokens
        return min(
            self.by_tokens.value(tokens), self.by_blocks.value(self.blocks_free - state.blocks)
        )


class _Fraction:
    """A knapsack whose pieces, the cheapest first, can be cut."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self.sizes = list(itertools.accumulate((each[1] for each in pieces), initial=0.0))
        self.values = list(itertools.accumulate((each[2] for each in pieces), initial=0.0))

    def value(self, room: float) -> float:
        """Most value in so much room."""
        after = bisect.bisect_right(self.sizes, room)
        if after == 0:
            return 0.0
        if after == len(self.sizes):
            return self.values[-1]
        part = (room - self.sizes[after - 1]) / (self.sizes[after] - self.sizes[after - 1])
        return self.values[after - 1] + part * (self.values[after] - self.values[after - 1])


def _plan(best: State, budget: PrefillBudget, *, steps: int, is_greedy: bool) -> Plan:
    promises = best.items()
    segments = [
        budget.segment(state.before.counts, state.before.end_s, state.end_s)
        for _, state in promises
        if state.before is not None and state.end_s > state.before.end_s
    ]
    accepted: list[Promise] = []
    kept: list[Promise] = []
    for item, state in promises:
        promise = Promise(request_id=item.prompt.request_id, due_s=item.due_s, ready_s=state.end_s)
        (accepted if item.is_new else kept).append(promise)
    return Plan(
        accepted=tuple(accepted),
        kept=tuple(kept),
        segments=tuple(segments),
        rest=budget.rest(best.counts, best.end_s),
        value=best.value,
        is_greedy=is_greedy,
        steps=steps,
    )


def _overloaded() -> Plan:
    return Plan(accepted=(), kept=(), segments=(), rest=None, value=0.0, is_overloaded=True)
