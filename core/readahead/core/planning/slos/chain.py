"""Keeping promises one after the other, in the order in which they are due."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from readahead.core.planning.slos.prefill_budget import Line, PrefillBudget
from readahead.core.planning.slos.tiers import Counts, Prompt


class Item(NamedTuple):
    """A prompt as the search sees it."""

    prompt: Prompt
    due_s: float
    demand_tokens: float
    is_new: bool


class State(NamedTuple):
    """Promises that can be kept together; the last one's prompt is computed at `end_s`."""

    value: float
    blocks: int
    spare_tokens: float
    """Budget until `end_s` that nobody took: what comes later may use it."""
    end_s: float
    counts: Counts
    before: State | None = None
    item: Item | None = None
    """The last promise."""

    def items(self) -> list[tuple[Item, State]]:
        """All promises, each with the state in which it was made; first due first."""
        found, state = [], self
        while state.before is not None and state.item is not None:
            found.append((state.item, state))
            state = state.before
        return found[::-1]


def joined(counts: Counts, tier: int) -> Counts:
    """One more of this tier."""
    return (*counts[:tier], counts[tier] + 1, *counts[tier + 1 :])


def extended(states: Sequence[State], item: Item, budget: PrefillBudget) -> list[State]:
    """With one more promise, due no earlier than the others: none, one or two ways for each state.

    Its prompt is computed in what is spare, at no later time than the last one's ("skip"); or
    another interval is planned, which ends when it is due ("full"). Both are of use: an interval
    brings budget and costs a cut, and a request that skips decodes, and costs, earlier.

    There is at least one state, and all decode the same counts.
    """
    found: list[State] = []
    counts = states[0].counts
    after = joined(counts, item.prompt.tier)
    rate_after = budget.line(after).tokens_per_s
    if rate_after < 0:
        return found
    line = budget.line(counts)
    prompt, due_s, demand_tokens, is_new = item
    worth, joining = prompt.value if is_new else 0.0, prompt.blocks
    for state in states:
        value, blocks, spare_tokens, end_s, *_ = state
        value, blocks, left = value + worth, blocks + joining, spare_tokens - demand_tokens
        span_s = due_s - end_s
        gain = line.tokens(span_s)
        if left >= 0 and gain < rate_after * span_s:
            found.append(State(value, blocks, left, end_s, after, state, item))
        if gain > 0 and left + gain >= 0:
            found.append(State(value, blocks, left + gain, due_s, after, state, item))
    return found


def pruned(states: list[State], line: Line) -> list[State]:
    """Those that no other one replaces. All decode the same counts, whose line it is.

    One replaces another if whatever can follow that one can follow it, for no less value: it has
    no less value and no more memory, and no less spare budget; where it ends later, so much more
    as the seconds between would have brought at most.
    """
    if len(states) < 2:
        return states
    rate = line.tokens_per_s
    kept: list[State] = []
    for state in sorted(states, key=_merit):
        _, blocks, spare_tokens, end_s, *_ = state
        for one in kept:  # none has less value
            if one.blocks <= blocks:
                ahead_s = one.end_s - end_s
                needed = spare_tokens + ahead_s * rate if ahead_s > 0 else spare_tokens
                if one.spare_tokens >= needed:
                    break
        else:
            kept.append(state)
    return kept


def _merit(state: State) -> tuple[float, int, float]:
    return (-state.value, state.blocks, -state.spare_tokens)


def chained(states: list[State], item: Item, budget: PrefillBudget) -> list[State]:
    """All ways worth having in which one more promise joins any of these; [] for none.

    All of the states decode the same counts.
    """
    longer = extended(states, item, budget)
    return pruned(longer, budget.line(longer[0].counts)) if longer else []
