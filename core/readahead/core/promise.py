"""What a request is promised: when its first token is due, and how long each further one takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from readahead.core.config import require
from readahead.core.reading.curves import EPSILON_S, SLO_TOLERANCE

STAGES_MAX = 8
"""Thinking, calls of tools and an answer are fewer; what travels with each leg is bounded."""
SECONDS_MAX = 86_400.0
"""A day: longer is a mistake in units."""


class Verdict(StrEnum):
    """What a worker's planner has decided about a request."""

    NEW = "new"
    """Nothing yet; nothing ever where the policy admits everybody alike."""
    ACCEPTED = "accepted"
    """Its promise is kept before everything else; never taken back."""
    BEST_EFFORT = "best-effort"
    """Declined: it gets what is left over, and is accepted after all if there is room in time."""

    @property
    def told(self) -> str:
        """As users are told: nothing where nothing was decided."""
        return "" if self is Verdict.NEW else self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedStage:
    """Some tokens of an answer, and the time that each may take.

    It ends after so many tokens, or with the token that ends it, whichever comes first; with
    neither it goes on for ever.
    """

    token_s: float
    tokens: int | None = None
    until_token_id: int | None = None

    def __post_init__(self) -> None:
        require("token_s", self.token_s, least=1e-6, most=SECONDS_MAX)
        if self.tokens is not None:
            require("tokens", self.tokens, least=1)

    @property
    def is_endless(self) -> bool:
        """Nothing ends it."""
        return self.tokens is None and self.until_token_id is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """When a request's tokens are due, stage by stage.

    Ref: [SLOs-Serve] whose stages each have a bound; StagedCurve judges by the same one.
    """

    first_token_s: float
    """From the request's arrival until its first token is due; of one that has been moved, its
    next token, which may have been due before."""
    stages: tuple[PromisedStage, ...]
    """In order; all but the last end."""

    def __post_init__(self) -> None:
        require("first_token_s", self.first_token_s, least=-SECONDS_MAX, most=SECONDS_MAX)
        if not 1 <= len(self.stages) <= STAGES_MAX:
            raise ValueError(f"stages must be 1 to {STAGES_MAX}, are {len(self.stages)}")
        if any(stage.is_endless for stage in self.stages[:-1]):
            raise ValueError("every stage but the last must have an end")


class PromiseClock:
    """When the next token of one request is due.

    A token is due the time of its stage after the one before was due, or came if that was later:
    who has waited is owed the rest as if nothing had been promised for the time that he waited.

    `is_kept` is the verdict of `StagedCurve` on the same times, asked at the last token of each
    delivery instead of at every tenth one.
    """

    __slots__ = (
        "_allowed_s",
        "_base_s",
        "_index",
        "_left",
        "_stages",
        "_tolerated_s",
        "due_s",
        "is_kept",
        "late_s",
    )

    def __init__(self, promise: Promise, *, arrived_at: float) -> None:
        self.due_s = arrived_at + promise.first_token_s
        """When the next token is due, on the clock of `arrived_at`."""
        self.is_kept = True
        """No token was late beyond the tolerance of SLOs."""
        self.late_s = 0.0
        """By how much tokens were late in all; the same as the worst was by the promise alone."""
        self._stages = promise.stages
        self._index = 0
        self._left = self._tokens_of(promise.stages[0])
        self._base_s: float | None = None
        self._allowed_s = 0.0
        self._tolerated_s = SLO_TOLERANCE * max(0.0, promise.first_token_s)

    @property
    def token_s(self) -> float:
        """The time that the next token may take after the one that is due."""
        return self._stages[self._index].token_s

    @property
    def wants_ids(self) -> bool:
        """Whether this stage or a later one ends with a certain token."""
        return any(stage.until_token_id is not None for stage in self._stages[self._index :])

    def deliver(self, tokens: int, *, now: float, token_ids: Sequence[int] = ()) -> None:
        """Tokens have come.

        Args:
            tokens: how many, all at once.
            now: seconds on the clock of `arrived_at`.
            token_ids: they; may be left out where not `wants_ids`.
        """
        if tokens <= 0:
            return
        late_s = max(0.0, now - self.due_s)
        self.late_s += late_s
        if self._base_s is None:
            self._base_s = max(self.due_s, now)
            self.is_kept = late_s <= self._tolerated_s + EPSILON_S
        self.due_s = max(self.due_s, now)
        self._take(tokens - 1, token_ids)
        bound_s = self._base_s + self._allowed_s * (1 + SLO_TOLERANCE)
        if self._allowed_s and now > bound_s + EPSILON_S:
            self.is_kept = False
        self._take(1, token_ids[tokens - 1 :])

    def rest(self, *, arrived_at: float) -> Promise:
        """What is still promised, as of a request that arrived at another moment."""
        stage = replace(
            self._stages[self._index], tokens=None if self._left == math.inf else int(self._left)
        )
        return Promise(
            first_token_s=min(max(self.due_s - arrived_at, -SECONDS_MAX), SECONDS_MAX),
            stages=(stage, *self._stages[self._index + 1 :]),
        )

    def _take(self, tokens: int, token_ids: Sequence[int]) -> None:
        """Counts tokens that come at the same time, each at the rate of its stage."""
        at = 0
        while at < tokens:
            stage = self._stages[self._index]
            now = int(min(tokens - at, self._left))
            has_ended = now == self._left
            if stage.until_token_id is not None and len(token_ids) > at:
                ids = token_ids[at : at + now]
                if stage.until_token_id in ids:
                    now, has_ended = list(ids).index(stage.until_token_id) + 1, True
            self.due_s += now * stage.token_s
            self._allowed_s += now * stage.token_s
            self._left -= now
            at += now
            if has_ended and self._index + 1 < len(self._stages):
                self._index += 1
                self._left = self._tokens_of(self._stages[self._index])
            elif has_ended:  # the last stage goes on for ever, whatever would end it
                self._left = math.inf

    @staticmethod
    def _tokens_of(stage: PromisedStage) -> float:
        return math.inf if stage.tokens is None else stage.tokens
