"""vLLM's default order: those that run first, then chunks of prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from readahead.core.planning.knobs import check_knobs, knob
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmChunked:
    """First come, first served, running before waiting, within a token budget.

    Ref: [vLLM] as of version 1 of its engine.
    Differs: a prompt is let in when blocks for all of it are free, not chunk by chunk, so that
    two half computed prompts cannot block each other; no priorities.
    """

    name: ClassVar[str] = "vllm-chunked"
    batch_tokens: int = knob(
        2048,
        least=1,
        most=1 << 20,
        meaning="Tokens in an iteration. vLLM's default for its server on an A100.",
    )

    def __post_init__(self) -> None:
        check_knobs(self)

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        budget = min(self.batch_tokens, view.limits.batch_tokens_max)
        entries: list[tuple[Sequence, int]] = []
        for sequence in view.running:
            if budget <= 0:
                break
            tokens = min(sequence.missing, budget)
            entries.append((sequence, tokens))
            budget -= tokens
        entries += first_come(view, budget)
        return Choice(entries=entries, victims=latest_first(view), chunks_hold=True)


def first_come(view: EngineView, budget: int) -> list[tuple[Sequence, int]]:
    """Those that wait, in order, for as many tokens as the budget has."""
    entries: list[tuple[Sequence, int]] = []
    for sequence in view.waiting[: max(0, view.room)]:
        if sequence.is_pulled:
            entries.append((sequence, 0))
            continue
        if budget <= 0:
            break
        tokens = min(sequence.missing, budget)
        entries.append((sequence, tokens))
        budget -= tokens
    return entries


def latest_first(view: EngineView) -> list[Sequence]:
    """Running sequences, the one that was let in last first; none where no block can lack."""
    return [] if view.blocks_free >= len(view.running) else list(reversed(view.running))
