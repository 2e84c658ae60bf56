"""When each token is due: one frame for every service level objective.

A curve gives token i of a request a due time d_i; the objective is met iff t_i <= d_i for all i.

Ref: [SmoothGoodput] Eq. 1 to 5; [SLOs-Serve] for the staged curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from readahead.core.reading.timeline import Timeline

EPSILON_S = 1e-9
"""A token this late is in time: times are sums of floats."""

SLO_TOLERANCE = 0.05
"""Share by which the staged curve's bounds may be exceeded, as where it comes from."""

CHECK_EVERY_TOKENS = 10
"""Where the staged curve is looked at: speculation delivers several tokens at once."""


class Origin(StrEnum):
    """From when a reader's due times count."""

    COMMIT = "commit"
    FIRST_TOKEN = "first_token"


class Curve(Protocol):
    """A due time for each token of a request."""

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock."""
        ...

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        ...

    def is_met(self, timeline: Timeline) -> bool:
        """Whether each token came in time. Without a token nothing is met."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingCurve:
    """d_i = origin + offset + i / pace: a reader at a steady pace.

    From the commitment, token 1 is due at offset + 1/pace. From the first token, that token is in
    time whenever it comes, and token i is due (i - 1) / pace + offset later: the reader starts
    with what he sees, and the wait for the first token goes unpunished.

    Tokens are counted from the first one after the thinking; those of the thinking are never due.
    Without a reader none is.

    Ref: [SmoothGoodput] Eq. 5.
    """

    pace_tok_s: float
    offset_s: float = 0.0
    origin: Origin = Origin.COMMIT

    def __post_init__(self) -> None:
        _check_positive(pace_tok_s=self.pace_tok_s)
        if not 0 <= self.offset_s < math.inf:
            raise ValueError(f"offset_s must be finite and >= 0, is {self.offset_s}")

    def start_s(self, timeline: Timeline) -> float:
        """The time t with d_i = t + i / pace; inf where no first token gives an origin."""
        if not timeline.has_reader:
            return math.inf
        if self.origin is Origin.COMMIT:
            return timeline.arrival_s + self.offset_s
        read_s = timeline.read_times_s
        return read_s[0] + self.offset_s - 1 / self.pace_tok_s if len(read_s) else math.inf

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock; inf for never."""
        start_s, pace_tok_s = self.start_s(timeline), self.pace_tok_s
        read = len(timeline.read_times_s)
        due_times_s = [start_s + i / pace_tok_s for i in range(1, read + 1)]
        return [math.inf] * (timeline.tokens - read) + due_times_s

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        return self.start_s(timeline) + (len(timeline.read_times_s) + 1) / self.pace_tok_s

    def is_met(self, timeline: Timeline) -> bool:
        """Whether each token came in time. Without a token nothing is met."""
        return _all_in_time(self, timeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class TtftTbt:
    """d_1 = TTFT, d_i = t_(i-1) + TBT: each token is chained to the one before.

    Ref: [SmoothGoodput] Eq. 2. Too tight for a reader with text left, and it can be gamed.
    """

    ttft_s: float
    tbt_s: float

    def __post_init__(self) -> None:
        _check_positive(ttft_s=self.ttft_s, tbt_s=self.tbt_s)

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock."""
        if not timeline.tokens:
            return []
        chained = [t + self.tbt_s for t in timeline.token_times_s[:-1]]
        return [timeline.arrival_s + self.ttft_s, *chained]

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        if not timeline.tokens:
            return timeline.arrival_s + self.ttft_s
        return timeline.token_times_s[-1] + self.tbt_s

    def is_met(self, timeline: Timeline) -> bool:
        """Whether each token came in time. Without a token nothing is met."""
        return _all_in_time(self, timeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class TtftTpot:
    """d_1 = TTFT, d_i = t_1 + (n - 1) * TPOT: only the first and the last token are bound.

    Ref: [SmoothGoodput] Eq. 3. Too loose: it allows any stall that the end makes up for.
    """

    ttft_s: float
    tpot_s: float

    def __post_init__(self) -> None:
        _check_positive(ttft_s=self.ttft_s, tpot_s=self.tpot_s)

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock."""
        n = timeline.tokens
        if not n:
            return []
        last_due_s = timeline.token_times_s[0] + (n - 1) * self.tpot_s
        return [timeline.arrival_s + self.ttft_s, *[last_due_s] * (n - 1)]

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        if not timeline.tokens:
            return timeline.arrival_s + self.ttft_s
        return timeline.token_times_s[0] + timeline.tokens * self.tpot_s

    def is_met(self, timeline: Timeline) -> bool:
        """Whether each token came in time. Without a token nothing is met."""
        return _all_in_time(self, timeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """d_i = E2E: the whole answer within one bound.

    Ref: [SmoothGoodput] Eq. 4.
    """

    e2e_s: float

    def __post_init__(self) -> None:
        _check_positive(e2e_s=self.e2e_s)

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock."""
        return [timeline.arrival_s + self.e2e_s] * timeline.tokens

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        return timeline.arrival_s + self.e2e_s

    def is_met(self, timeline: Timeline) -> bool:
        """Whether each token came in time. Without a token nothing is met."""
        return _all_in_time(self, timeline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Some tokens of an answer, and the time that each may take."""

    tpot_s: float
    tokens: int | None = None
    """How many; None: all that follow. The last stage of a curve goes on for ever."""

    def __post_init__(self) -> None:
        _check_positive(tpot_s=self.tpot_s)
        if self.tokens is not None and self.tokens < 1:
            raise ValueError(f"tokens must be >= 1, is {self.tokens}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedCurve:
    """d_1 = TTFT, then d_i = max(TTFT, t_1) + the time that the tokens before i may take.

    A first token that is late within the tolerance re-bases what follows, so that it is not
    held against each later token again; a token that is early earns slack. Looked at in every
    tenth token and in the last, since several tokens may come at once.

    Ref: [SLOs-Serve] as its authors' code checks attainment.
    """

    ttft_s: float
    stages: tuple[Stage, ...]
    tolerance: float = SLO_TOLERANCE
    check_every_tokens: int = CHECK_EVERY_TOKENS

    def __post_init__(self) -> None:
        _check_positive(ttft_s=self.ttft_s)
        if not self.stages:
            raise ValueError("stages must not be empty")
        if self.tolerance < 0 or self.check_every_tokens < 1:
            raise ValueError("tolerance must be >= 0 and check_every_tokens >= 1")

    def due_times_s(self, timeline: Timeline) -> list[float]:
        """When each delivered token was due, on the timeline's clock."""
        return self._due_times_s(timeline, timeline.tokens)

    def next_due_s(self, timeline: Timeline) -> float:
        """When the token after the last delivered one is due; inf for never."""
        return self._due_times_s(timeline, timeline.tokens + 1)[-1]

    def is_met(self, timeline: Timeline) -> bool:
        """Whether the tokens that are looked at came in time. Without a token nothing is met."""
        n = timeline.tokens
        due_times_s = self.due_times_s(timeline)
        looked_at = {1, n, *range(self.check_every_tokens, n, self.check_every_tokens)}
        return n > 0 and all(
            timeline.token_times_s[i - 1] <= due_times_s[i - 1] + EPSILON_S for i in looked_at
        )

    def _due_times_s(self, timeline: Timeline, tokens: int) -> list[float]:
        first_due_s = timeline.arrival_s + self.ttft_s
        base_s = max([first_due_s, *timeline.token_times_s[:1]])
        due_times_s = [timeline.arrival_s + self.ttft_s * (1 + self.tolerance)]
        allowed_s = 0.0
        for i in range(1, tokens):
            allowed_s += self._stage_of(i).tpot_s
            due_times_s.append(base_s + allowed_s * (1 + self.tolerance))
        return due_times_s[:tokens]

    def _stage_of(self, i: int) -> Stage:
        for stage in self.stages[:-1]:
            if stage.tokens is None or i <= stage.tokens:
                return stage
            i -= stage.tokens
        return self.stages[-1]


Slo = ReadingCurve | TtftTbt | TtftTpot | EndToEnd | StagedCurve
"""What a request may have been promised."""


def _all_in_time(curve: Curve, timeline: Timeline) -> bool:
    due_times_s = curve.due_times_s(timeline)
    return timeline.tokens > 0 and all(
        t <= due_s + EPSILON_S for t, due_s in zip(timeline.token_times_s, due_times_s, strict=True)
    )


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not number > 0:
            raise ValueError(f"{name} must be > 0, is {number}")
