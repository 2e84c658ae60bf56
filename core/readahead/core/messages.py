"""What happens to the router's core (events) and what it asks for (commands).

Commands carry the request's `attempt`; events echo it; an event of another attempt is stale and
has no effect. Neither holds prompts, text or KV handles: those stay with the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad
from readahead.core.errors import Reason
from readahead.core.promise import Verdict
from readahead.core.reading.pace import PaceSource
from readahead.core.request import FinishReason, Incarnation, Leg, RequestId, Stage, WorkerId

# Events


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestArrived:
    """A front door accepted a well-formed request."""

    request_id: RequestId
    prompt_tokens: int
    output_tokens_max: int
    pace_tok_s: float
    deadline: float | None = None
    """When the caller gives up, seconds on the driver's clock."""
    first_token_s: float | None = None
    """From now until its first token is promised; None: nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCancelled:
    """The caller left or asked to stop."""

    request_id: RequestId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJoined:
    """A worker can be used: it is described and its Steps stream is open.

    Again for the same incarnation: it takes legs once more. For another one: the old is lost.
    """

    description: WorkerDescription


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDrained:
    """A worker takes no new legs, since it drains or has left the store; those it has go on."""

    worker_id: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost:
    """A worker is gone: its stream is broken, or it has been silent for too long."""

    worker_id: WorkerId
    incarnation: Incarnation
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRefused:
    """A worker did not take a leg, or could not be told."""

    request_id: RequestId
    attempt: int
    leg: Leg
    worker_id: WorkerId
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillFinished:
    """The prompt's KV waits on the worker. The driver holds the handover."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class LegFinished:
    """A generating leg ended well."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class LegFailed:
    """A worker gave up on a leg that it had taken."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensMade:
    """Tokens of one request in one engine step, already relayed to its session."""

    request_id: RequestId
    attempt: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepObserved:
    """One engine step: the load after it and the tokens it made for this router.

    Or several steps of one batch, told of after the last: each request's tokens then came evenly,
    the first at `first_at` and the last now.
    """

    worker_id: WorkerId
    incarnation: Incarnation
    load: WorkerLoad
    made: tuple[TokensMade, ...] = ()
    first_at: float | None = None
    """Seconds on the driver's clock; None: all came now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegJudged:
    """The planner of the worker that has a leg has decided about its promise."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId
    verdict: Verdict
    has_output: bool = False
    """Tokens of it are about to be told, or have been."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingReported:
    """The user has read this many output tokens."""

    request_id: RequestId
    tokens_read: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCommitted:
    """The target has all of the leg, and the source has stopped or is lost: the target owns it.

    Told before any other news of the leg from the target, and before the loss of the source.
    """

    request_id: RequestId
    attempt: int
    move: int
    source: WorkerId
    target: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFailed:
    """The target refused, or the copy broke before the commit: the source goes on alone."""

    request_id: RequestId
    attempt: int
    move: int
    source: WorkerId
    target: WorkerId
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """`next_deadline()` has come."""


Event = (
    RequestArrived
    | RequestCancelled
    | WorkerJoined
    | WorkerDrained
    | WorkerLost
    | LegRefused
    | PrefillFinished
    | LegFinished
    | LegFailed
    | StepObserved
    | LegJudged
    | ReadingReported
    | MigrationCommitted
    | MigrationFailed
    | TimerFired
)

# Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitLeg:
    """Hand a leg to a worker. Answered by LegRefused, or by what the leg brings forth."""

    request_id: RequestId
    attempt: int
    leg: Leg
    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelLeg:
    """End a leg. Not answered."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewHandover:
    """Extend the lease of a KV cache that waits on a prefill worker. Not answered."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHandover:
    """Free a KV cache that nobody will pull. Not answered."""

    request_id: RequestId
    attempt: int
    worker_id: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateLeg:
    """Move a running leg to another decode worker, which reserves room for it first.

    The source owns it until the commit. Answered once: by MigrationCommitted or MigrationFailed,
    or by the leg's end or the loss of either worker.
    """

    request_id: RequestId
    attempt: int
    move: int
    """Counts the moves of the request, from 1; news of another move is stale."""
    source: WorkerId
    target: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortMigration:
    """Give a move up. Not answered.

    The target frees all that it has of the leg, even where the commit has just happened. The
    source, where no CancelLeg came with it, goes on; if it has given the leg away already, it
    says LegFailed.
    """

    request_id: RequestId
    attempt: int
    move: int
    source: WorkerId
    target: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRequest:
    """Tell the caller how it ended. The last command of a request; exactly one."""

    request_id: RequestId
    stage: Stage
    """A final stage."""
    finish_reason: FinishReason | None = None
    """Set iff FINISHED."""
    reason: Reason | None = None
    """Set iff not FINISHED."""
    message: str = ""
    retry_after_s: float | None = None


Command = (
    SubmitLeg
    | CancelLeg
    | RenewHandover
    | ReleaseHandover
    | MigrateLeg
    | AbortMigration
    | EndRequest
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided for a request, and why; kept for Explain."""

    at: float
    """Seconds on the driver's clock."""
    kind: str
    """"admit", "prefill", "handover", "decode", "verdict", "migrate", "retry" or "finish"."""
    worker_id: WorkerId | None
    reason: str
    """One sentence."""
    costs: Mapping[WorkerId, float] = field(default_factory=dict)
    """What each candidate would have cost; empty where there was no choice."""
    slack_s: float | None = None
    """Time left then: until its first token was due, then until its reader had nothing left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingState:
    """How far one reader is, at one moment."""

    pace_tok_s: float
    pace_source: PaceSource
    unread_tokens: int
    """Delivered to him, and he has not come to them yet."""
    slack_s: float
    """Until nothing is left to read; negative while he waits."""
    idle_s: float
    """That he has waited for text in all."""
    stalls: int
    """How often he ran out of text, a wait for the first token included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloState:
    """What has become of one promise, at one moment."""

    name: str
    """Of the class, or "explicit"."""
    first_token_s: float
    """From the arrival until the first token was due."""
    is_kept: bool
    """No token was late beyond the tolerance of SLOs."""
    late_s: float
    """By how much the worst one was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A request's stage and the decisions that led there, oldest first."""

    request_id: RequestId
    stage: Stage
    arrived_at: float
    tokens_delivered: int
    tokens_read: int
    """As last reported by the client."""
    decisions: tuple[Decision, ...]
    reading: ReadingState | None = None
    """Filled in by the driver, which keeps the reading clock."""
    slo: SloState | None = None
    """Likewise; None: nothing was promised."""
    verdict: Verdict = Verdict.NEW
    """Of a worker's planner, as last told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts of the router's core, for gauges."""

    by_stage: Mapping[Stage, int]
    """Live requests by stage."""
    workers: Mapping[Role, int]
    """Usable workers by role."""
