"""Who decodes, seen from the readers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence


@dataclass(slots=True)
class Readers:
    """The running sequences by what they do next."""

    decoding: list[Sequence]
    begun: list[Sequence]
    """Prompts of which a part is computed."""
    poor: list[Sequence]
    """Those that decode and whose reader has little left to read."""
    least_slack_s: float
    """Of the poor; inf where there is none."""

    def everybody(self, now: float) -> Readers:
        """The same with all who decode for poor: who is not has more slack than any who is."""
        least_s = self.least_slack_s
        if not self.poor and self.decoding:
            least_s = min([s.due_at for s in self.decoding]) - now
        return Readers(self.decoding, self.begun, self.decoding, least_s)


def readers_of(view: EngineView, now: float, *, rich_s: float) -> Readers:
    """Sorts running sequences; one with more than `rich_s` seconds left to read is not poor."""
    decoding: list[Sequence] = []
    begun: list[Sequence] = []
    poor: list[Sequence] = []
    first_due = float("inf")
    rich_from = now + rich_s
    for sequence in view.running:  # hundreds: `missing` and `due_at` are written out
        known = sequence.prompt_tokens + sequence.generated
        if known - (sequence.computed or sequence.cached_tokens) > 1:
            begun.append(sequence)
            continue
        decoding.append(sequence)
        due_at = sequence.reads_until
        if due_at == -math.inf:
            due_at = sequence.due_at
        if due_at <= rich_from:
            poor.append(sequence)
            if due_at < first_due:
                first_due = due_at
    return Readers(decoding, begun, poor, first_due - now)


def decode_entries(
    decoding: list[Sequence], work: WorkSum, *, tokens_max: int
) -> tuple[list[tuple[Sequence, int]], bool]:
    """One token for each, and whether all are in; first those due first where they are too many."""
    is_all = len(decoding) <= tokens_max
    if not is_all:
        decoding = sorted(decoding, key=lambda s: s.due_at)[:tokens_max]
    work.tokens += len(decoding)
    work.requests += len(decoding)
    work.past_tokens += sum([s.computed for s in decoding])
    return [(sequence, 1) for sequence in decoding], is_all


def richest_first(view: EngineView) -> list[Sequence]:
    """Running sequences, those with most left to read first; none where no block can lack.

    Of equals the latest let in goes first.
    """
    if view.blocks_free >= len(view.running):
        return []
    return sorted(view.running, key=lambda s: s.due_at)[::-1]
