"""The router's mutable record of one live request."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from readahead.core.messages import Decision, Explanation
from readahead.core.promise import Verdict
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import TRANSITIONS, Leg, RequestId, RequestView, Stage, WorkerId

DECISIONS_MAX = 64
"""Decisions kept per request; three tries take about fifteen. The oldest go first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A move that is under way: the source owns the leg, the target keeps a seat for it."""

    move: int
    source: WorkerId
    target: WorkerId


@dataclass(slots=True, kw_only=True, eq=False)
class LiveRequest:
    """What the core remembers of a request from its arrival to its end."""

    request_id: RequestId
    prompt_tokens: int
    output_tokens_max: int
    pace_tok_s: float
    arrived_at: float
    first_due_at: float | None = None
    """When its first token is promised; None: nothing is, and its reader says when."""
    verdict: Verdict = Verdict.NEW
    """What a worker's planner has decided about it, as last told."""
    stage: Stage = Stage.QUEUED
    attempt: int = 1
    leg: Leg | None = None
    """Set iff a worker has a leg of it."""
    worker_id: WorkerId | None = None
    """Who has that leg."""
    source_id: WorkerId | None = None
    """Prefill worker that holds its KV until it is pulled."""
    waits_since: float
    """When it last began to wait for a worker; a refusal does not count as progress."""
    failures: int = 0
    """Attempts that a worker took and lost."""
    tokens_delivered: int = 0
    delivered_at: float = -math.inf
    tokens_read: int = 0
    clock: ReadingClock = field(init=False)
    """Its reader's, committed at the arrival."""
    migration: Migration | None = None
    moves: int = 0
    """Migrations begun."""
    moved_at: float = -math.inf
    """When the last one ended."""
    departed_from: WorkerId | None = None
    """Where it was before the last one that was committed."""
    decisions: deque[Decision] = field(default_factory=lambda: deque(maxlen=DECISIONS_MAX))

    def __post_init__(self) -> None:
        self.clock = ReadingClock(pace_tok_s=self.pace_tok_s, commit_s=self.arrived_at)

    @property
    def tokens_max(self) -> int:
        """Most KV it can come to occupy, tokens."""
        return self.prompt_tokens + self.output_tokens_max

    @property
    def is_movable(self) -> bool:
        """A decode worker generates it, and it is not on the move."""
        is_generating = self.stage is Stage.DECODING and self.tokens_delivered > 0
        return is_generating and self.migration is None

    def move(self, stage: Stage) -> None:
        """Changes the stage; an illegal move is our bug."""
        assert stage in TRANSITIONS[self.stage], f"{self.request_id}: {self.stage} -> {stage}"
        self.stage = stage

    def note(
        self,
        kind: str,
        reason: str,
        *,
        now: float,
        worker_id: WorkerId | None = None,
        costs: Mapping[WorkerId, float] | None = None,
    ) -> None:
        """Records a decision for Explain."""
        self.decisions.append(
            Decision(
                at=now,
                kind=kind,
                worker_id=worker_id,
                reason=reason,
                costs=costs or {},
                slack_s=self.slack_s(now),
            )
        )

    def slack_s(self, now: float) -> float:
        """Seconds until its first token is due; then until its reader has nothing left to read."""
        if self.first_due_at is not None and not self.tokens_delivered:
            return self.first_due_at - now
        return self.clock.slack_s(now)

    def view(self) -> RequestView:
        """What a policy may see."""
        return RequestView(
            request_id=self.request_id,
            prompt_tokens=self.prompt_tokens,
            output_tokens_max=self.output_tokens_max,
            arrived_at=self.arrived_at,
            attempt=self.attempt,
            pace_tok_s=self.clock.pace_tok_s,
            tokens_delivered=self.tokens_delivered,
            delivered_at=self.delivered_at,
            reads_until=self.clock.deadline_s,
            moved_at=self.moved_at,
            is_movable=self.is_movable,
            is_leaving=self.migration is not None,
        )

    def explanation(self) -> Explanation:
        """Its stage and decisions, frozen."""
        return Explanation(
            request_id=self.request_id,
            stage=self.stage,
            arrived_at=self.arrived_at,
            tokens_delivered=self.tokens_delivered,
            tokens_read=self.tokens_read,
            decisions=tuple(self.decisions),
            verdict=self.verdict,
        )
