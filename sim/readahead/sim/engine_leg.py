"""A leg in a simulated engine, and the KV that waits after one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from readahead.core.cluster import WorkerDescription
from readahead.core.errors import Reason
from readahead.core.messages import LegFinished, LegRefused, TokensMade
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.request import FinishReason, Leg, RequestId, WorkerId

if TYPE_CHECKING:
    from readahead.sim.drafts import RightDrafts
    from readahead.sim.engine_handovers import Handovers
    from readahead.sim.links import Transfer
    from readahead.sim.stretch import Stretch

Key = tuple[RequestId, int]
"""A request and its attempt."""
Prefix = tuple[tuple[str, int], ...]
"""What a prompt consists of: keys of its segments, with their tokens."""


@dataclass(slots=True, eq=False, kw_only=True)
class EngineLeg:
    """One leg. The engine's policy sees `sequence` alone, never `output_tokens`."""

    leg: Leg
    sequence: Sequence
    output_tokens: int
    """After how many it ends; its true length, or the most that its user allowed."""
    stretches: list[Stretch]
    """Where its request's tokens were made, one after the other; shared with the request."""
    source: Handovers | None = None
    """Whose KV a decode leg pulls."""
    right: RightDrafts | None = None
    """Which drafts of its text are right, where engines speculate; no policy sees it."""
    prefix: Prefix = ()
    answer_key: str = ""
    """Key of its answer as a segment, where a later prompt may carry it."""
    transfer: Transfer | None = None
    taker: Callable[[], None] | None = None
    """Is called once it has stopped here, to go on elsewhere."""
    is_leaving: bool = False
    """Cancelled while its iteration runs; it leaves with the end of that."""

    @property
    def key(self) -> Key:
        """Its request and attempt."""
        return self.sequence.request_id, self.sequence.attempt


def made_by(leg: EngineLeg, tokens: int) -> TokensMade:
    """As the router is told."""
    request_id, attempt = leg.key
    return TokensMade(request_id=request_id, attempt=attempt, tokens=tokens)


def refused(leg: EngineLeg, by: WorkerDescription) -> LegRefused:
    """Where its prompt can never fit."""
    request_id, attempt = leg.key
    return LegRefused(
        request_id=request_id,
        attempt=attempt,
        leg=leg.leg,
        worker_id=by.worker_id,
        reason=Reason.CONTEXT_TOO_LONG,
        message=f"the prompt has {leg.sequence.prompt_tokens} tokens, the context "
        f"{by.context_tokens_max}",
    )


def finished(leg: EngineLeg, worker_id: WorkerId) -> LegFinished:
    """Where its answer has ended."""
    request_id, attempt = leg.key
    is_cut_off = leg.sequence.generated >= leg.sequence.output_tokens_max
    return LegFinished(
        request_id=request_id,
        attempt=attempt,
        worker_id=worker_id,
        finish_reason=FinishReason.LENGTH if is_cut_off else FinishReason.STOP,
    )


def holds(plan: Plan, sequence: Sequence) -> bool:
    """Whether a plan has this one in it."""
    return any(one is sequence for one, _ in plan.entries)


def makes_tokens(plan: Plan, sequence: Sequence) -> bool:
    """Whether each iteration of a plan that is not committed yet makes a token of this one."""
    return any(one is sequence and tokens == one.missing for one, tokens in plan.entries)


def read_on(sequence: Sequence, stretch: Stretch) -> None:
    """What the scheduler believes of the reader: its clock over a stretch, in one step.

    Reading ends at max over i of t_i + (n - i + 1) / pace, or where it would have ended anyway.
    Iterations get longer and never shorter while a batch decodes, so the greatest is that of the
    first token or of the last; with noise this is within one iteration's excess of the clock.
    """
    per_token_s = 1.0 / sequence.pace_tok_s
    tokens = stretch.iterations
    first_s = stretch.end_s if tokens == 1 else stretch.first_s
    until = max(sequence.reads_until, first_s) + tokens * per_token_s
    sequence.reads_until = max(until, stretch.end_s + per_token_s)
