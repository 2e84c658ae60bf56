"""A leg in an engine, as its scheduler may know it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from readahead.core.promise import PromiseClock, Verdict
from readahead.core.request import RequestId


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """Its KV is `computed` tokens in `blocks` blocks. It has no true output length, so that no
    policy can cheat; whoever runs the engine keeps that elsewhere."""

    request_id: RequestId
    attempt: int = 1
    prompt_tokens: int
    output_tokens_max: int
    arrived_at: float
    """When its user sent the request, seconds on the engine's clock: his deadlines run from it."""
    pace_tok_s: float = 5.0
    """Tokens per second that its user reads, or is promised."""
    reads_until: float = -math.inf
    """When its reader will have read all that was delivered (ReadingClock.deadline_s); before
    the first token, when that one is due. With a promise, when the next token is due."""
    cached_tokens: int = 0
    """Prompt tokens whose KV a prefix cache has, below `prompt_tokens`. Whoever keeps the cache
    says so at any time before the sequence is let in; it then starts behind them, in blocks of
    its own."""
    is_pulled: bool = False
    """Its prompt's KV comes from another worker."""
    is_prefill_only: bool = False
    """It ends with its first token; its KV then waits to be pulled."""
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    is_ended: bool = False
    is_copied: bool = False
    """It is parked, or resumes from that, and host memory has its KV."""
    moved_at: float = -math.inf
    """When it was last parked or resumed, seconds on the engine's clock."""
    verdict: Verdict = Verdict.NEW
    """What was decided about its promise: by an earlier engine when it comes, then by the policy
    here, if that admits at all."""

    @property
    def known(self) -> int:
        """Tokens whose KV is needed before the next one can be made."""
        return self.prompt_tokens + self.generated

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one is made; 1 for one that decodes."""
        return self.prompt_tokens + self.generated - (self.computed or self.cached_tokens)

    @property
    def due_at(self) -> float:
        """When its next token is due, seconds on the engine's clock; where nobody keeps
        `reads_until`, by a reader who began when he sent the request."""
        if self.reads_until == -math.inf:
            return self.arrived_at + (self.generated + 1) / self.pace_tok_s
        return self.reads_until

    def plan_by(self, promise: PromiseClock, *, lag_s: float = 0.0) -> None:
        """Has policies go by what was promised instead of by the reader.

        Args:
            promise: of the request, on the engine's clock.
            lag_s: what a token takes from the engine to its reader.
        """
        self.pace_tok_s = 1 / promise.token_s
        self.reads_until = promise.due_s - lag_s

    def slack_s(self, now: float) -> float:
        """Seconds until its reader has nothing left to read; negative while he waits."""
        return self.reads_until - now
