"""The prompts of an iteration whose length is bounded by readers' slack."""

from __future__ import annotations

import math
from collections.abc import Sequence as Ordered
from dataclasses import dataclass

from readahead.core.latency.iteration import LatencyModel
from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Align:
    """Prompt-aligned batches: an iteration ends in time for the prompts that end in it.

    A prompt's first token comes with the end of its iteration: whatever is put in behind it delays
    it. So an iteration is filled only as far as each prompt that is finished in it, and can be in
    time, still is.
    """

    now: float
    """On the engine's clock."""

    def end_s(self, sequence: Sequence, seconds: float) -> float:
        """When an iteration has to end in which this prompt is finished after so many seconds."""
        due_s = sequence.due_at - self.now
        return due_s if seconds <= due_s else math.inf


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
    free, room, left = view.blocks_free, view.room, bound.tokens_max
    model, limit_s = view.limits.latency, bound.limit_s
    for sequence in order:
        if left < 1:
            break
        is_new = not sequence.blocks
        blocks = view.limits.blocks_for(sequence.known) if is_new else 0
        if is_new and (blocks > free or room < 1):
            room = 0
            continue
        tokens = _chunk(model, sequence, work, bound, limit_s=limit_s, left=left)
        if tokens < 1:
            break
        free, room = free - blocks, room - is_new
        entries.append((sequence, tokens))
        work.add(sequence.computed or sequence.cached_tokens, tokens)
        left -= tokens
        if align is not None and model is not None and tokens == sequence.missing:
            limit_s = min(limit_s, align.end_s(sequence, work.seconds(model)))
    return entries


def _chunk(
    model: LatencyModel | None,
    sequence: Sequence,
    work: WorkSum,
    bound: Bound,
    *,
    limit_s: float,
    left: int,
) -> int:
    most = min(sequence.missing, left)
    if model is None:
        return most
    computed = sequence.computed or sequence.cached_tokens
    tokens = work.chunk_within(limit_s, computed, most, model)
    if not work.requests and tokens < 1:
        return most  # nobody decodes, so that nobody waits for it
    begun = bound.tokens_max - left
    return max(tokens, min(most, bound.tokens_least - begun))
