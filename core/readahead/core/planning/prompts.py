"""The prompts of an iteration whose length is bounded by readers' slack."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Prompt-aligned batches: an iteration ends where prompts end, instead of being filled.

    A prompt's first token comes with the end of its iteration, and an iteration's throughput
    hardly grows beyond some hundred tokens: filling it up only delays those that were ready.
    """

    end_tokens: int
    """No further prompt is begun once those that are finished have so many tokens."""

    def is_enough(self, finished_tokens: int) -> bool:
        """Whether the iteration should end here."""
        return finished_tokens >= self.end_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How long an iteration may be."""

    limit_s: float
    """By the iteration-time model; ignored where there is none."""
    tokens_max: int
    """Prompt tokens."""
    tokens_least: int = 0
    """Prompt tokens that are computed whatever the time."""


def fill(
    view: EngineView,
    order: Ordered[Sequence],
    *,
    work: WorkSum,
    bound: Bound,
    align: Align | None = None,
) -> list[tuple[Sequence, int]]:
    """Chunks of prompts, in order, beside what `work` holds already; adds them to it.

    Only sequences that can have their blocks: none that waits goes in before one that could not.
    """
    entries: list[tuple[Sequence, int]] = []
    free, room, left, finished = view.blocks_free, view.room, bound.tokens_max, 0
    for sequence in order:
        if left < 1 or (align is not None and align.is_enough(finished)):
            break
        is_new = not sequence.blocks
        blocks = view.limits.blocks_for(sequence.known) if is_new else 0
        if is_new and (blocks > free or room < 1):
            room = 0
            continue
        tokens = _chunk(view, sequence, work=work, bound=bound, left=left)
        if tokens < 1:
            break
        free, room = free - blocks, room - is_new
        entries.append((sequence, tokens))
        work.add(sequence.computed or sequence.cached_tokens, tokens)
        left -= tokens
        if tokens == sequence.missing:
            finished += tokens
    return entries


def _chunk(view: EngineView, sequence: Sequence, *, work: WorkSum, bound: Bound, left: int) -> int:
    most, model = min(sequence.missing, left), view.limits.latency
    if model is None:
        return most
    computed = sequence.computed or sequence.cached_tokens
    tokens = work.chunk_within(bound.limit_s, computed, most, model)
    if not work.requests and tokens < 1:
        return most  # nobody decodes, so that nobody waits for it
    begun = bound.tokens_max - left
    return max(tokens, min(most, bound.tokens_least - begun))
