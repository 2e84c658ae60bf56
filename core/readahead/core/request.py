"""A request's life: its ids, its legs, its stages and the moves between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

RequestId = NewType("RequestId", str)
WorkerId = NewType("WorkerId", str)
Incarnation = NewType("Incarnation", str)
"""One start of a worker's process. A restarted worker keeps its id and gets a new incarnation."""


class Leg(StrEnum):
    """The part of a request that one worker runs."""

    PREFILL = "prefill"
    """Compute the prompt and keep its KV for a handover."""
    DECODE = "decode"
    """Pull the handover's KV, then generate."""
    WHOLE = "whole"
    """Both on one worker; for prompts too short to be worth a handover."""


class FinishReason(StrEnum):
    """Why output ended, when it ended well."""

    STOP = "stop"
    LENGTH = "length"


class Stage(StrEnum):
    """Where a request is."""

    QUEUED = "queued"
    """Waits in the router for a worker."""
    PREFILLING = "prefilling"
    """Its prompt is at a prefill worker."""
    HANDOVER = "handover"
    """Its KV waits on the prefill worker, under a lease that the router renews."""
    DECODING = "decoding"
    """A decode worker pulls its KV or generates."""
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REJECTED = "rejected"
    """Never reached an engine."""

    @property
    def is_final(self) -> bool:
        """Nothing follows."""
        return not TRANSITIONS[self]


_ENDS = frozenset({Stage.CANCELLED, Stage.FAILED})

TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    Stage.QUEUED: frozenset({Stage.PREFILLING, Stage.DECODING, Stage.REJECTED}) | _ENDS,
    Stage.PREFILLING: frozenset({Stage.HANDOVER, Stage.QUEUED}) | _ENDS,
    Stage.HANDOVER: frozenset({Stage.DECODING, Stage.QUEUED}) | _ENDS,
    Stage.DECODING: frozenset({Stage.FINISHED, Stage.HANDOVER, Stage.QUEUED}) | _ENDS,
    Stage.FINISHED: frozenset(),
    Stage.CANCELLED: frozenset(),
    Stage.FAILED: frozenset(),
    Stage.REJECTED: frozenset(),
}
"""The legal moves. A move back to QUEUED is a retry, with the next attempt; one back to HANDOVER
is a refused decode leg, whose KV still waits at its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """What a policy may know of a request. It has no true output length, so none can cheat."""

    request_id: RequestId
    prompt_tokens: int
    output_tokens_max: int
    arrived_at: float
    """Seconds on the driver's clock."""
    attempt: int
    pace_tok_s: float
    """Tokens per second the user reads."""
    tokens_delivered: int = 0
    delivered_at: float = -math.inf
    """When he last got a token, seconds on the driver's clock; -inf: never."""
    reads_until: float = -math.inf
    """When he will have read all that was delivered; before the first token, when that is due."""
    moved_at: float = -math.inf
    """When its last migration ended, well or badly; -inf: there was none."""
    is_movable: bool = False
    """A decode worker generates it, and it is not on the move."""
    is_leaving: bool = False
    """It is on the move to another worker."""

    @property
    def context_tokens(self) -> int:
        """Its KV, as far as the router knows."""
        return self.prompt_tokens + self.tokens_delivered

    def slack_s(self, now: float) -> float:
        """Seconds until its reader has nothing left to read; negative while he waits."""
        return self.reads_until - now
