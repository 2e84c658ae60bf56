"""How far one reader is, and when he runs out of text."""

from __future__ import annotations

import math
from enum import StrEnum

EPSILON_TOKENS = 1e-6
"""A token that the reader comes to within rounding counts as read."""


class Edge(StrEnum):
    """What changed for a reader."""

    WENT_IDLE = "went_idle"
    RESUMED = "resumed"


class ReadingClock:
    """A reader who reads at a steady pace and, where he stalled, goes on from there.

    The i-th token is read from s_i = max(t_i, s_(i-1) + 1/pace), t_i being its delivery; the
    clock keeps the end of that recursion, so each call costs O(1). A token counts as read as soon
    as the reader comes to it.

    With `commit_s` the first token is due at commit + offset + 1/pace, and a later one makes the
    reader wait. Without, he starts with the first token (plus the offset), whenever it comes.

    Ref: [SmoothGoodput] Eq. 9, the user's idle time; unrolled, the recursion's stalls sum to it.
    """

    __slots__ = (
        "_delivered",
        "_idle_s",
        "_offset_s",
        "_pace_tok_s",
        "_reads_until",
        "_reported_read",
        "_was_idle",
    )

    def __init__(
        self, *, pace_tok_s: float, commit_s: float | None = None, offset_s: float = 0.0
    ) -> None:
        self._pace_tok_s = pace_tok_s
        self._offset_s = offset_s
        self._delivered = 0
        self._reported_read = 0
        self._idle_s = 0.0
        self._was_idle = False
        self._reads_until = -math.inf if commit_s is None else commit_s + offset_s + 1 / pace_tok_s

    @property
    def pace_tok_s(self) -> float:
        """How fast he reads."""
        return self._pace_tok_s

    @property
    def delivered(self) -> int:
        """Tokens that he got."""
        return self._delivered

    @property
    def deadline_s(self) -> float:
        """When the next token is due, the stalls so far included; -inf for at once.

        Delivered at t, it makes him wait max(0, t - deadline_s) seconds.
        """
        return self._reads_until

    def deliver(self, tokens: int, *, now: float) -> float:
        """Gives the reader more text. Returns how long he had been waiting for it, seconds."""
        if tokens <= 0:
            return 0.0
        stall_s = 0.0
        if self._reads_until == -math.inf:
            self._reads_until = now + self._offset_s
        elif now > self._reads_until:
            stall_s = now - self._reads_until
            self._idle_s += stall_s
            self._reads_until = now
        self._reads_until += tokens / self._pace_tok_s
        self._delivered += tokens
        return stall_s

    def acknowledge(self, tokens_read: int, *, now: float) -> None:
        """The reader says that he has come to this many tokens.

        Moves the clock as little as makes it agree, and never says anything about waits that are
        over. A report that says less than an earlier one was overtaken by it, and has no effect.
        """
        tokens_read = min(tokens_read, self._delivered)
        if tokens_read < self._reported_read or not self._delivered:
            return
        self._reported_read = tokens_read
        # He is within the token that he came to last: ahead of him are the unread ones, and at
        # most that one more. With none unread he may also have been waiting for any time.
        unread = self._delivered - tokens_read
        if tokens_read:  # one who has not begun may be any time ahead of his first token
            self._reads_until = min(self._reads_until, now + (unread + 1) / self._pace_tok_s)
        if unread:
            within_tokens = unread + 2 * EPSILON_TOKENS
            self._reads_until = max(self._reads_until, now + within_tokens / self._pace_tok_s)

    def change_pace(self, pace_tok_s: float, *, now: float) -> None:
        """He reads what he has left at another pace; waits so far stay as they were."""
        ahead_s = self._reads_until - now
        if not self._delivered:
            self._reads_until += 1 / pace_tok_s - 1 / self._pace_tok_s
        elif ahead_s > 0:
            self._reads_until = now + ahead_s * self._pace_tok_s / pace_tok_s
        self._pace_tok_s = pace_tok_s

    def slack_s(self, now: float) -> float:
        """Seconds until nothing is left to read; negative while he waits, -inf before any text.

        Before any text, but with a commitment, it is the time until the first token is due.
        """
        return self._reads_until - now

    def unread_tokens(self, now: float) -> int:
        """Tokens delivered that he has not come to yet."""
        if not self._delivered:
            return 0
        ahead = math.ceil((self._reads_until - now) * self._pace_tok_s - EPSILON_TOKENS)
        return min(self._delivered, max(0, ahead - 1))

    def read_tokens(self, now: float) -> int:
        """Tokens that he has come to."""
        return self._delivered - self.unread_tokens(now)

    def is_idle(self, now: float) -> bool:
        """Whether he waits; not before any text, unless the clock knows of a commitment."""
        return -math.inf < self._reads_until < now

    def idle_s(self, now: float) -> float:
        """Seconds that he has waited so far, the wait that goes on included."""
        if not self.is_idle(now):
            return self._idle_s
        return self._idle_s + now - self._reads_until

    def edge(self, now: float) -> Edge | None:
        """What has changed since this was last asked; he starts as one who does not wait.

        A wait that began and ended in between is not seen here; `deliver` returns its length.
        """
        is_idle = self.is_idle(now)
        if is_idle == self._was_idle:
            return None
        self._was_idle = is_idle
        return Edge.WENT_IDLE if is_idle else Edge.RESUMED
