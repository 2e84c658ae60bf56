"""Stall-free batching: decodes first, then as much of prompts as their tokens' pace allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.knobs import check_knobs, knob
from readahead.core.planning.policies.vllm_chunked import first_come, latest_first
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Sarathi:
    """All that decode, then prompts begun, then prompts that wait, within a token budget.

    Ref: [Sarathi-Serve]
    Differs: with `tbt_s` the budget follows from the iteration-time model and the very batch,
    where the source profiles one number for a model, a device and a bound.
    """

    name: ClassVar[str] = "sarathi"
    chunk_tokens: int = knob(
        512, least=16, most=16384, meaning="Tokens in an iteration, decodes included."
    )
    tbt_s: float = knob(
        0.0,
        least=0,
        most=10,
        meaning="Time between tokens that prompts must not break, seconds; 0: `chunk_tokens` "
        "alone says. Needs the engine's iteration-time model.",
    )

    def __post_init__(self) -> None:
        check_knobs(self)

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        entries: list[tuple[Sequence, int]] = []
        begun: list[Sequence] = []
        for sequence in view.running:
            if sequence.missing == 1:
                entries.append((sequence, 1))
            else:
                begun.append(sequence)
        budget = self._budget(view, entries)
        for sequence in begun:
            tokens = min(sequence.missing, budget)
            if tokens < 1:
                break
            entries.append((sequence, tokens))
            budget -= tokens
        entries += first_come(view, budget)
        # A budget in tokens is the same while prompts go on; one in seconds is not.
        return Choice(entries=entries, victims=latest_first(view), chunks_hold=not self.tbt_s)

    def _budget(self, view: EngineView, decodes: list[tuple[Sequence, int]]) -> int:
        """Prompt tokens that this iteration may compute."""
        model, most = view.limits.latency, view.limits.batch_tokens_max - len(decodes)
        if not self.tbt_s or model is None:
            return min(self.chunk_tokens - len(decodes), most)
        work = WorkSum()
        for sequence, _ in decodes:
            work.add(sequence.computed, 1)
        # The first prompt's past is what the chunk attends to; later ones have less of it.
        past = next((s.computed for s in view.running if s.missing > 1), 0)
        return work.chunk_within(self.tbt_s, past, most, model)
