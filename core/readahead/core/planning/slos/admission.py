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
from collections.abc import Iterator, Sequence

from readahead.core.planning.slos.chain import Item, State, chained, extended, pruned
from readahead.core.planning.slos.prefill_budget import PrefillBudget
from readahead.core.planning.slos.tiers import Counts, Load, Plan, Promise, Prompt

STEPS_MAX = 1_200
"""States after which the search gives up: some 10 ms of one processor core."""

_CLOSE = 1e-9


def admit(
    new: Sequence[Prompt], load: Load, budget: PrefillBudget, *, steps_max: int = STEPS_MAX
) -> Plan:
    """The accepted set of greatest value with which every promise can be kept, and the plan.

    In the order of due times, over the accepted requests by tier, states that no other replaces
    in value, memory, spare budget and end; those are dropped that cannot come to more value than
    the greedy rule's set has, even if requests could be accepted in part. Where more than
    `steps_max` states would be looked at, that set is the answer.

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

    def exact(self, best: State, steps_max: int) -> State | None:
        """The best set; None where the limit is met."""
        frontier: dict[Counts, list[State]] = {self.start.counts: [self.start]}
        for index, item in enumerate(self.items):
            bound = _Bound(self.items[index + 1 :], item.due_s, self.blocks_free)
            grown: dict[Counts, list[State]] = {}
            for states in frontier.values():
                self.steps += len(states)
                if self.steps > steps_max:
                    return None
                for state in states:
                    for after in self._ways(state, item):
                        rate = self.budget.line(after.counts).tokens_per_s
                        most = after.value + bound.value(after, rate) + _CLOSE
                        if self.is_whole_valued:
                            most = math.floor(most)
                        if most > best.value + 2 * _CLOSE:
                            grown.setdefault(after.counts, []).append(after)
            frontier = {
                counts: pruned(states, self.budget.line(counts)) for counts, states in grown.items()
            }
        ends = [state for states in frontier.values() for state in states]
        return max([best, *ends], key=lambda each: each.value)

    def _ways(self, state: State, item: Item) -> Iterator[State]:
        """What may follow a state when it is this one's turn."""
        if item.is_new:
            yield state
        if state.blocks + item.prompt.blocks <= self.blocks_free:
            yield from extended(state, item, self.budget)


class _Bound:
    """Most value that the items still to come can add, if a part of one could be accepted."""

    def __init__(self, items: list[Item], now_s: float, blocks_free: int) -> None:
        new = [item for item in items if item.is_new]
        kept = [item for item in items if not item.is_new]
        self.last_s = items[-1].due_s if items else now_s
        self.kept_tokens = sum(item.demand_tokens for item in kept)
        self.blocks_free = blocks_free - sum(item.prompt.blocks for item in kept)
        self.by_tokens = _Fraction([(item.demand_tokens, item.prompt.value) for item in new])
        self.by_blocks = _Fraction([(item.prompt.blocks, item.prompt.value) for item in new])

    def value(self, state: State, rate: float) -> float:
        """For what follows this state, at no more than so many prompt tokens a second."""
        tokens = state.spare_tokens + rate * (self.last_s - state.end_s) - self.kept_tokens
        return min(
            self.by_tokens.value(tokens), self.by_blocks.value(self.blocks_free - state.blocks)
        )


class _Fraction:
    """A knapsack whose pieces can be cut."""

    def __init__(self, pieces: list[tuple[float, float]]) -> None:
        order = sorted(pieces, key=lambda each: each[0] / each[1] if each[1] else float("inf"))
        self.sizes = list(itertools.accumulate((size for size, _ in order), initial=0.0))
        self.values = list(itertools.accumulate((value for _, value in order), initial=0.0))

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
