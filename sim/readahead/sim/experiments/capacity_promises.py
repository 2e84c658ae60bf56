"""What the capacity experiment promises a request: the reading SLO, or that of its scenario.

Policies are told it, as due times of tokens, and requests are judged by it. Both follow core's
curves; tests/unit/sim/test_capacity_promises.py holds them to those.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from readahead.core.reading.curves import CHECK_EVERY_TOKENS, EPSILON_S, SLO_TOLERANCE
from readahead.ruler.run import Floats
from readahead.workload.session import Turn


class Kind(StrEnum):
    """Whose promise."""

    READING = "reading"
    """Nobody waits more than OFFSET_S for text, in all, at PACE_TOK_S."""
    STAGED = "staged"
    """The scenario's own: a slow-down to the first token, and a time per token of each stage."""


PACE_TOK_S, OFFSET_S = 5.0, 1.0
"""Of the reading SLO. A model's thinking is shown, and read like the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Due times of one request's tokens, seconds after its arrival."""

    kind: Kind
    first_s: float
    """When the first token is due."""
    token_s: float
    """Time that each token of the answer may take."""
    thinking_tokens: int = 0
    """So many may take `thinking_token_s` each instead."""
    thinking_token_s: float = 0.0

    @property
    def told_token_s(self) -> float:
        """The time per token of its first stage."""
        return self.thinking_token_s if self.thinking_tokens else self.token_s

    def last_s(self, tokens: int) -> float:
        """When the last of so many tokens is due, if the first was in time."""
        return self.first_s + float(self._allowed_s(np.array([tokens - 1.0]))[0])

    def is_met(self, times_s: Floats) -> bool:
        """Whether the tokens came in time; `times_s` are seconds after the arrival."""
        count = len(times_s)
        if not count:
            return False
        if self.kind is Kind.READING:
            late_s = times_s - self._allowed_s(np.arange(count, dtype=np.float64))
            return bool(late_s.max() <= self.first_s + EPSILON_S)
        if times_s[0] > self.first_s * (1 + SLO_TOLERANCE) + EPSILON_S:
            return False
        step = CHECK_EVERY_TOKENS
        places = np.append(np.arange(step - 1, count - 1, step), count - 1)
        base_s = max(self.first_s, float(times_s[0]))
        due_s = base_s + self._allowed_s(places.astype(np.float64)) * (1 + SLO_TOLERANCE)
        return count == 1 or bool((times_s[places] <= due_s + EPSILON_S).all())

    def _allowed_s(self, after: Floats) -> Floats:
        """Time that so many tokens after the first may take."""
        thought = np.minimum(after, self.thinking_tokens)
        allowed_s: Floats = thought * self.thinking_token_s + (after - thought) * self.token_s
        return allowed_s


def promise(turn: Turn, kind: Kind, *, zero_load_ttft_s: float) -> Promise:
    """That of one turn. What a program reads is held to its scenario's SLO whatever the kind.

    Raises:
        ValueError: that is wanted, and its scenario has none.
    """
    if kind is Kind.READING and turn.has_reader:
        return Promise(kind=kind, first_s=OFFSET_S + 1 / PACE_TOK_S, token_s=1 / PACE_TOK_S)
    slo = turn.slo
    if slo is None:
        raise ValueError("the turn has no SLO")
    is_staged = slo.think_tpot_s is not None
    return Promise(
        kind=Kind.STAGED,
        first_s=slo.ttft_slowdown * zero_load_ttft_s,
        token_s=slo.tpot_s,
        thinking_tokens=turn.thinking_tokens if is_staged else 0,
        thinking_token_s=slo.think_tpot_s or 0.0,
    )
