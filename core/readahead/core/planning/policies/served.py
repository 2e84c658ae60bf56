"""Carrying out a decision about whom to serve until the next one."""

from __future__ import annotations

from dataclasses import dataclass, field

from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.quantum import Quantum
from readahead.core.planning.sequence import Sequence


@dataclass(slots=True, kw_only=True)
class Served:
    """Who is served, and who gives way."""

    order: list[Sequence] = field(default_factory=list)
    """In order of preference; running and waiting ones."""
    preempt: list[Sequence] = field(default_factory=list)
    """Now; empty once it has been done."""


def blocks_at_hand(view: EngineView) -> int:
    """Blocks that are free or would be if nobody ran."""
    return view.blocks_free + sum([s.blocks for s in view.running])


def carry_out(view: EngineView, served: Served, quantum: Quantum, *, batch_tokens: int) -> Choice:
    """Decodes of those served, then their prompts in order, within the token budget."""
    preempt, served.preempt = served.preempt, []
    decodes: list[tuple[Sequence, int]] = []
    prompts: list[Sequence] = []
    begun: list[Sequence] = []
    for sequence in served.order:
        if sequence.is_ended:
            continue
        if sequence.blocks and sequence.missing == 1:
            decodes.append((sequence, 1))
        elif sequence.blocks:
            begun.append(sequence)
        else:
            prompts.append(sequence)
    budget = min(batch_tokens, view.limits.batch_tokens_max) - len(decodes)
    entries = decodes
    for sequence in (*begun, *prompts):
        tokens = min(sequence.missing, budget)
        if sequence.is_pulled:
            entries.append((sequence, 0))
        elif tokens > 0:
            entries.append((sequence, tokens))
            budget -= tokens
    quantum.watch(entries)
    return Choice(
        entries=entries,
        victims=[s for s, _ in reversed(decodes)],
        preempt=preempt,
        holds_for=quantum.left,
        may_pass=True,
    )
