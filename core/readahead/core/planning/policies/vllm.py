"""vLLM without chunked prefill: whole prompts first, while those that decode wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from readahead.core.planning.knobs import check_knobs, knob
from readahead.core.planning.policies.vllm_chunked import latest_first
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm:
    """First come, first served, prefill first.

    An iteration is either prompts or decodes. As many whole prompts as the token budget and the
    free blocks allow go first; a prompt longer than the budget is computed alone, in pieces.

    Ref: [vLLM] as published, and version 0 of its engine.
    Differs: preemption always recomputes, never swaps; pieces of an over-long prompt instead of a
    refusal.
    """

    name: ClassVar[str] = "vllm"
    batch_tokens: int = knob(
        8192, least=1, most=65536, meaning="Prompt tokens in an iteration, at most."
    )
    watermark: float = knob(
        0.01,
        least=0,
        most=0.5,
        meaning="Share of the blocks that a prompt must leave free while others run.",
    )

    def __post_init__(self) -> None:
        check_knobs(self)

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        pulls, prompts = self._prompts(view)
        if prompts:
            return Choice(entries=[*pulls, *prompts], chunks_hold=True)
        entries = [(sequence, 1) for sequence in view.running]
        # Whether a waiting one fits changes only with blocks, which those that decode only take.
        return Choice(entries=[*entries, *pulls], victims=latest_first(view))

    def _prompts(
        self, view: EngineView
    ) -> tuple[list[tuple[Sequence, int]], list[tuple[Sequence, int]]]:
        """Those to be pulled, and prompts with their tokens."""
        budget = min(self.batch_tokens, view.limits.batch_tokens_max)
        pulls: list[tuple[Sequence, int]] = []
        prompts: list[tuple[Sequence, int]] = []
        for sequence in view.running:  # pieces, and prompts whose KV could not be pulled
            if sequence.missing > 1 and (not prompts or sequence.missing <= budget):
                prompts.append((sequence, min(sequence.missing, budget)))
                budget -= prompts[-1][1]
        keep = int(self.watermark * view.limits.kv_blocks) if view.running or view.pulling else 0
        free = view.blocks_free - keep
        for sequence in view.waiting[: max(0, view.room)]:
            free -= view.limits.blocks_for(sequence.known)
            if free < 0:
                break
            if sequence.is_pulled:
                pulls.append((sequence, 0))
            elif budget > 0 and (not prompts or sequence.missing <= budget):
                prompts.append((sequence, min(sequence.missing, budget)))
                budget -= prompts[-1][1]
            else:
                break
        return pulls, prompts
