"""How far a user who reads at a steady pace has come, and where he had to wait."""

from __future__ import annotations

import math
from dataclasses import dataclass

_EPSILON_TOKENS = 1e-9
"""A token that he comes to within rounding counts as read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """A wait of the reader for text, on the clock of whoever delivers."""

    began_s: float
    ended_s: float

    @property
    def duration_s(self) -> float:
        return self.ended_s - self.began_s


class ReadingBuffer:
    """Tokens delivered and tokens read. The reader reads each token for 1/pace, waits when
    nothing is left and goes on where he stopped. Times are the caller's, in seconds on one clock,
    and never go back.

    With `asked_at_s` he wants his first token 1/pace after he asked, and waits from then on.
    Without it he starts with the first token, and does not mind when that comes.
    """

    def __init__(self, pace_tok_s: float, *, asked_at_s: float | None = None) -> None:
        if not 0 < pace_tok_s < float("inf"):
            raise ValueError(f"pace_tok_s must be positive and finite, got {pace_tok_s}")
        self.pace_tok_s = pace_tok_s
        self.tokens_delivered = 0
        self.stalls: list[Stall] = []
        """Those that are over, oldest first."""
        self._stalled_s = 0.0
        self._wanted_at_s = None if asked_at_s is None else asked_at_s + 1 / pace_tok_s
        self._ended_at_s: float | None = None

    def deliver(self, tokens: int, *, now: float) -> None:
        """More has come."""
        wanted_at_s = now if self._wanted_at_s is None else self._wanted_at_s
        if tokens and now > wanted_at_s:
            self._stall(wanted_at_s, now)
            wanted_at_s = now
        self._wanted_at_s = wanted_at_s + tokens / self.pace_tok_s
        self.tokens_delivered += tokens

    def end(self, *, is_complete: bool, now: float) -> None:
        """Nothing more will come. Who reads an answer that broke off has waited until now."""
        if self._ended_at_s is not None:
            return
        if not is_complete and self._wanted_at_s is not None and now > self._wanted_at_s:
            self._stall(self._wanted_at_s, now)
        self._ended_at_s = now

    def unread_tokens(self, now: float) -> int:
        """Delivered, and he has not come to them yet."""
        ahead = math.ceil(self.slack_s(now) * self.pace_tok_s - _EPSILON_TOKENS)
        return min(self.tokens_delivered, max(0, ahead - 1))

    def tokens_read(self, now: float) -> float:
        """Read so far, a token in reading by its share."""
        return max(0.0, self.tokens_delivered - self.slack_s(now) * self.pace_tok_s)

    def slack_s(self, now: float) -> float:
        """Seconds until nothing is left to read; 0 while he waits."""
        return 0.0 if self._wanted_at_s is None else max(0.0, self._wanted_at_s - now)

    def idle_s(self, now: float) -> float:
        """Seconds that he has waited for text in all."""
        if self._ended_at_s is not None or self._wanted_at_s is None:
            return self._stalled_s
        return self._stalled_s + max(0.0, now - self._wanted_at_s)

    def _stall(self, began_s: float, ended_s: float) -> None:
        self._stalled_s += ended_s - began_s
        self.stalls.append(Stall(began_s=began_s, ended_s=ended_s))
