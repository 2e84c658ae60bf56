"""Speculation in a simulated engine: drafts join an iteration, and those that are right stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from readahead.core.planning.batch import Batch
from readahead.core.planning.drafts import DraftPlanner, Iteration
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.request import Leg
from readahead.sim.engine_leg import EngineLeg
from readahead.sim.engine_parts import EngineCounts, EngineParts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    drafted: int
    accepted: int
    made: int
    """Tokens of the answer that the iteration makes, the one it makes anyhow included."""
    blocks: int
    """That the sequence would have without the draft."""


class Speculation:
    """What one engine drafts. An iteration with readers who decode stands alone: what is accepted
    in it shapes the next.

    A draft that finds no free block is shorter; it preempts nobody.
    """

    def __init__(self, batch: Batch, parts: EngineParts, counts: EngineCounts) -> None:
        self._batch = batch
        self._counts = counts
        self._context_tokens_max = parts.description.context_tokens_max
        self._planner = DraftPlanner(draft_tokens_max=parts.draft_tokens_max)
        self._drafts: dict[Sequence, _Draft] = {}

    def join(self, plan: Plan, legs: Mapping[Sequence, EngineLeg]) -> Plan:
        """The plan with drafts, their blocks taken; as it was where nobody decodes."""
        decoding = [
            leg
            for sequence, _ in plan.entries
            if sequence.missing == 1
            and sequence.generated
            and (leg := legs[sequence]).leg is not Leg.PREFILL
        ]
        if not decoding:
            return plan
        batch, work = self._batch, plan.work
        iteration = Iteration(
            work=work,
            tokens_max=batch.limits.batch_tokens_max - work.tokens,
            latency=batch.limits.latency,
            prompts_wait=bool(work.prefill_pairs or batch.waiting),
        )
        readers = [(leg.sequence, 1 / leg.sequence.pace_tok_s) for leg in decoding]
        for leg, wanted in zip(decoding, self._planner.lengths(readers, iteration), strict=True):
            self._drafts[leg.sequence] = self._draft(leg, wanted)
        lengths = [draft.drafted for draft in self._drafts.values()]
        longer = replace(work, tokens=work.tokens + sum(lengths), draft_steps=max(lengths))
        return replace(plan, work=longer, repeats_max=1)

    def made(self, sequence: Sequence) -> int:
        """Tokens that the iteration under way makes of one that makes some."""
        draft = self._drafts.get(sequence)
        return 1 if draft is None else draft.made

    def settle(self) -> dict[Sequence, int]:
        """The iteration is over and committed: the KV of what was accepted is kept, no other.

        Returns the tokens made of each that had a draft.
        """
        batch, counts = self._batch, self._counts
        made: dict[Sequence, int] = {}
        for sequence, draft in self._drafts.items():
            made[sequence] = draft.made
            sequence.generated += draft.made - 1
            sequence.computed += draft.made - 1
            kept = max(draft.blocks, batch.limits.blocks_for(sequence.computed))
            batch.give(sequence.blocks - kept)
            sequence.blocks = kept
            counts.tokens_drafted += draft.drafted
            counts.tokens_accepted += draft.accepted
            self._planner.observe(sequence, drafted=draft.drafted, accepted=draft.accepted)
        self._drafts.clear()
        return made

    def forget(self, sequence: Sequence) -> None:
        """A leg is gone."""
        self._planner.forget(sequence)

    def _draft(self, leg: EngineLeg, wanted: int) -> _Draft:
        sequence, batch, blocks = leg.sequence, self._batch, leg.sequence.blocks
        drafted = min(
            wanted,
            sequence.output_tokens_max - sequence.generated - 1,
            self._context_tokens_max - sequence.known - 1,
        )
        short = batch.limits.blocks_for(sequence.computed + 1 + max(0, drafted)) - blocks
        if short > 0 and batch.take(short):
            sequence.blocks += short
        in_blocks = sequence.blocks * batch.limits.block_tokens - sequence.computed - 1
        drafted = max(0, min(drafted, in_blocks))
        assert leg.right is not None
        accepted = leg.right.accepted(drafted, after=sequence.generated)
        return _Draft(
            drafted=drafted,
            accepted=accepted,
            made=min(1 + accepted, leg.output_tokens - sequence.generated),
            blocks=blocks,
        )
