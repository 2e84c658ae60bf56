"""What a planner's choice means for one call of vLLM's own `schedule`.

vLLM goes through its running requests in order, then through those that wait, until a token budget
is used up. So a choice becomes: who is in those two lists, in which order, and the budget. What
cannot be said that way is said as closely as it can; see docs/explanation/engine.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.sequence import Sequence
from readahead.services.engine.vllm_scheduler_sequences import EngineSequence


@dataclass(slots=True, kw_only=True)
class Orders:
    """How vLLM's scheduler is set for one iteration. Requests are vLLM's."""

    run: list[Any] = field(default_factory=list)
    """Running requests that may be served, in order."""
    admit: list[Any] = field(default_factory=list)
    """Waiting requests that may be let in, in order."""
    give_up: list[Any] = field(default_factory=list)
    """Running requests that lose their KV first."""
    park: list[tuple[Any, bool]] = field(default_factory=list)
    """Running requests that are parked first, and whether their KV is copied."""
    resume: list[Any] = field(default_factory=list)
    """Parked requests that wait again; those with a copy are also the first of `admit`."""
    tokens: int = 0
    """Budget."""
    chunk_tokens: int = 0
    """Longest chunk of a prompt; 0: as the budget allows."""
    holds_for: int = 1
    """Iterations for which the same would be chosen again, if they only decode."""
    is_plain: bool = False
    """Every running request decodes and nobody can be let in: vLLM does the same unasked."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be computed or pulled."""
        return not (self.run or self.admit or self.is_plain or self.park or self.resume)


@dataclass(slots=True)
class _Entry:
    sequence: EngineSequence
    tokens: int
    is_partial: bool
    """It asks for less than it lacks, so vLLM would give it what is left of the budget."""


def orders_for(choice: Choice, view: EngineView) -> Orders:
    """The settings that make vLLM do what was chosen, or the closest to it."""
    running, waiting = _entries(choice, view)
    is_shut = not view.waiting or len(view.running) >= view.limits.requests_max
    is_moved = choice.preempt or choice.park or choice.resume
    if len(running) == len(view.running) and not waiting and is_shut and not is_moved:
        tight = view.blocks_free < len(running)
        if not tight and all(e.tokens == 1 and not e.is_partial for e in running):
            return Orders(is_plain=True, holds_for=choice.holds_for, tokens=len(running))
    preempted = set(choice.preempt)
    parked = {s: is_copied for s, is_copied in choice.park if s not in preempted}
    resumed = [s for s in choice.resume if s in view.parked]
    orders = Orders(
        give_up=[_request(s) for s in view.running if s in preempted],
        park=[(_request(s), parked[s]) for s in view.running if s in parked],
        resume=[_request(s) for s in resumed],
    )
    gone = preempted | parked.keys()
    running = [entry for entry in running if entry.sequence not in gone]
    running, waiting = _without_second_partial(running, waiting, orders, view)
    if _blocks_wanted(running, view) > view.blocks_free:
        running, lost = _make_room(running, choice, view, gone=gone)
        orders.give_up += [_request(sequence) for sequence in lost]
        if lost:
            waiting = []  # it would take the blocks that were just freed for others
    orders.run = [e.sequence.request for e in running if not e.is_partial]
    orders.run += [e.sequence.request for e in running if e.is_partial]
    orders.admit = [_request(s) for s in resumed if s.is_copied]
    orders.admit += [e.sequence.request for e in waiting]
    orders.tokens = sum([e.tokens for e in running]) + sum([e.tokens for e in waiting])
    # A pull begins only while there is a budget, though it takes nothing of it.
    orders.tokens += len(orders.admit) - sum([e.tokens > 0 for e in waiting])
    return orders


def _entries(choice: Choice, view: EngineView) -> tuple[list[_Entry], list[_Entry]]:
    """Each sequence of the view once, however often it was named; and nobody else."""
    running: list[_Entry] = []
    waiting: list[_Entry] = []
    left = {*view.running, *view.waiting}
    for sequence, tokens in choice.entries:
        if sequence not in left:
            continue
        left.remove(sequence)
        assert isinstance(sequence, EngineSequence)
        missing = sequence.missing
        if sequence.blocks:
            if tokens > 0:
                running.append(_Entry(sequence, min(tokens, missing), tokens < missing))
        elif sequence.is_pulled:
            waiting.append(_Entry(sequence, 0, False))
        elif tokens > 0:
            waiting.append(_Entry(sequence, min(tokens, missing), tokens < missing))
    return running, waiting


def _without_second_partial(
    running: list[_Entry], waiting: list[_Entry], orders: Orders, view: EngineView
) -> tuple[list[_Entry], list[_Entry]]:
    """Leaves one running prompt that is computed in part, since a budget can end but one.

    vLLM serves it before those that wait, or whose KV has come, and would give it their tokens
    too. A longest chunk prevents that where nobody else needs a longer one; else it sits out.
    """
    partial = [entry for entry in running if entry.is_partial]
    if not partial:
        return running, waiting
    first = partial[0]
    chunks = [e.tokens for e in (*running, *waiting) if e is not first and e not in partial[1:]]
    if waiting or orders.resume or view.pulling:
        if max(chunks, default=0) <= first.tokens:
            orders.chunk_tokens = first.tokens
        elif any(entry.tokens for entry in waiting):
            return [entry for entry in running if not entry.is_partial], waiting
    return [e for e in running if not e.is_partial or e is first], waiting


def _blocks_wanted(running: list[_Entry], view: EngineView) -> int:
    """An upper bound of the blocks that they grow into."""
    size = view.limits.block_tokens
    return sum([1 + (entry.tokens - 1) // size for entry in running])


def _make_room(
    running: list[_Entry], choice: Choice, view: EngineView, *, gone: set[Sequence]
) -> tuple[list[_Entry], list[Sequence]]:
    """Those that fit once some victims have lost their KV, as `Batch` does it; and the victims.

    Nobody waits for the blocks of those who are parked: with asynchronous scheduling they come
    later.
    """
    size = view.limits.block_tokens
    free = view.blocks_free + sum([s.blocks for s in choice.preempt])
    kept: list[_Entry] = []
    lost: list[Sequence] = []
    out = set(gone)  # no victims any more: they run, or have no KV
    victims = iter([v for v in choice.victims if v.blocks])
    for entry in running:
        sequence = entry.sequence
        if sequence in out:
            continue
        short = -(-(sequence.computed + entry.tokens) // size) - sequence.blocks
        while short > free and sequence not in out:
            victim = next((v for v in victims if v not in out), None)
            if victim is None:
                break
            out.add(victim)
            lost.append(victim)
            free += victim.blocks
        if sequence not in out and short <= free:
            free -= short
            out.add(sequence)
            kept.append(entry)
    return kept, lost


def _request(sequence: Sequence) -> Any:
    assert isinstance(sequence, EngineSequence)
    return sequence.request
