"""One reader at one answer: how far he is, when he waits, when he reports and when he leaves."""

from __future__ import annotations

import math
from enum import StrEnum

from readahead.core.reading.clock import EPSILON_TOKENS
from readahead.workload.reader import Reader

DRIFT_TOKENS = 100
"""Tokens over which a reader's drift is told."""
NO_DRIFT = 1e-15
"""Less per token is none in any answer, and its powers are lost in rounding."""
EXPONENT_MAX = 700.0
"""A reader who slows down without end comes to stand still; exp() of more overflows."""


class Leaving(StrEnum):
    """Why a reader leaves."""

    IMPATIENT = "impatient"
    """One wait for text lasted too long."""
    READ_ENOUGH = "read_enough"


class Habit:
    """How long a reader needs for the first so many tokens, in closed form.

    His pace at token i is pace x q^i, q being his drift per token, and from where he skims
    `skim_factor` times that. At d per 100 tokens, q = (1 + d)^(1/100).
    """

    __slots__ = ("_log_q", "_pace_tok_s", "_skim_factor", "_skims_from", "_skims_from_s", "_step")

    def __init__(self, reader: Reader) -> None:
        _check(reader)
        self._pace_tok_s = reader.pace_tok_s
        log_q = math.log1p(reader.drift_per_100_tokens) / DRIFT_TOKENS
        self._log_q = log_q if abs(log_q) > NO_DRIFT else 0.0
        self._step = -math.expm1(-self._log_q)
        skims_from = reader.skims_from_tokens
        self._skims_from = math.inf if skims_from is None else max(0, skims_from)
        self._skim_factor = reader.skim_factor
        self._skims_from_s = (
            math.inf if skims_from is None else self._paced(self._skims_from) / self._pace_tok_s
        )

    def pace_tok_s(self, token: int) -> float:
        """How fast he reads the token with this index, the first being 0."""
        drifted = self._pace_tok_s * math.exp(min(self._log_q * token, EXPONENT_MAX))
        return drifted * self._skim_factor if token >= self._skims_from else drifted

    def seconds(self, tokens: float) -> float:
        """Time for the first so many tokens without any wait."""
        if tokens <= self._skims_from:
            return self._paced(tokens) / self._pace_tok_s
        skimmed = self._paced(tokens) - self._paced(self._skims_from)
        return self._skims_from_s + skimmed / (self._pace_tok_s * self._skim_factor)

    def tokens(self, seconds: float) -> float:
        """The inverse: how many he is through with after so long; below 0 before he begins."""
        if seconds <= self._skims_from_s:
            return self._unpaced(seconds * self._pace_tok_s)
        skimmed = (seconds - self._skims_from_s) * self._pace_tok_s * self._skim_factor
        return self._unpaced(self._paced(self._skims_from) + skimmed)

    def _paced(self, tokens: float) -> float:
        """Time for the first so many, in units of the first one's: 1 + 1/q + ... + 1/q^(n-1)."""
        if not self._log_q:
            return tokens
        return -math.expm1(min(-self._log_q * tokens, EXPONENT_MAX)) / self._step

    def _unpaced(self, units: float) -> float:
        if not self._log_q:
            return units
        passed = units * self._step
        return -math.log1p(-passed) / self._log_q if passed < 1 else math.inf


class ReaderRun:
    """What one reader does with one answer, in whoever's time: each call costs O(1).

    The law is that of `ReadingClock` in core, which this equals for a steady pace: token i is
    read from s_i = max(t_i, s_(i-1) + the time for token i-1), the first being due one token's
    time after the commitment, and counts as read as soon as the reader comes to it.

    Thinking tokens are not read. He waits through them, but patiently: each is a sign of life.
    Calls come in the order of their times, seconds on one clock.
    """

    __slots__ = (
        "_delivered",
        "_ended_s",
        "_habit",
        "_idle_s",
        "_last_sign_s",
        "_next_report_s",
        "_reader",
        "_reads_until_s",
        "_report_every_s",
        "_reported",
        "_thinking",
        "_thinking_left",
        "read_enough_s",
        "reports",
        "stalls",
    )

    def __init__(self, reader: Reader, *, commit_s: float, thinking_tokens: int = 0) -> None:
        self._habit = Habit(reader)
        self._reader = reader
        self._delivered = 0
        self._thinking = 0
        self._thinking_left = max(0, thinking_tokens)
        self._idle_s = 0.0
        self._ended_s: float | None = None
        self._reads_until_s = commit_s + self._habit.seconds(1)
        self._last_sign_s = -math.inf
        self._report_every_s = reader.report_every_s
        self._reported = 0
        self._next_report_s = (
            math.inf if self._report_every_s is None else commit_s + self._report_every_s
        )
        self.read_enough_s = math.inf
        """When he will have read all that he wants to, as far as the text has come; else inf."""
        self.stalls = 0
        """Waits that are over."""
        self.reports = 0
        """Reports made."""

    @property
    def delivered(self) -> int:
        """Tokens that came, thinking included."""
        return self._delivered + self._thinking

    @property
    def finished_reading_s(self) -> float:
        """When he comes to the end of the answer; inf while more may come."""
        if self._ended_s is None:
            return math.inf
        return max(self._ended_s, self._reads_until_s) if self._delivered else self._ended_s

    @property
    def leaves_at_s(self) -> float:
        """When he leaves unless text comes before; inf for never, as things stand."""
        return min(self._impatient_s(), self.read_enough_s)

    @property
    def leaves_because(self) -> Leaving:
        """Why he then leaves."""
        enough = self.read_enough_s <= self._impatient_s()
        return Leaving.READ_ENOUGH if enough else Leaving.IMPATIENT

    @property
    def next_report_s(self) -> float:
        """When to ask for a report; inf once all is read and said."""
        if self._ended_s is not None and self._reported >= self.delivered:
            return math.inf
        return self._next_report_s

    def deliver(self, tokens: int, *, now: float) -> float:
        """More text. Returns how long he had been waiting for it, seconds."""
        if self._thinking_left and tokens > 0:
            thinking = min(tokens, self._thinking_left)
            self._thinking_left -= thinking
            self._thinking += thinking
            self._last_sign_s = now
            tokens -= thinking
        if tokens <= 0:
            return 0.0
        stall_s = now - self._reads_until_s
        if stall_s > 0:
            self._idle_s += stall_s
            self._reads_until_s = now
            self.stalls += 1
        before_s = self._habit.seconds(self._delivered)
        self._delivered += tokens
        self._reads_until_s += self._habit.seconds(self._delivered) - before_s
        wanted = self._reader.leaves_after_tokens
        if wanted is not None and self._delivered >= wanted and self.read_enough_s == math.inf:
            self.read_enough_s = self._comes_to_s(max(1, wanted))
        return max(0.0, stall_s)

    def end(self, *, now: float, is_complete: bool = True) -> None:
        """No more will come. Who reads an answer that broke off has waited until now."""
        if self._ended_s is not None:
            return
        if not is_complete and now > self._reads_until_s:
            self._idle_s += now - self._reads_until_s
            self.stalls += 1
        self._ended_s = now

    def slack_s(self, now: float) -> float:
        """Seconds until nothing is left to read, or the first text is due; negative: he waits."""
        return self._reads_until_s - now

    def is_idle(self, now: float) -> bool:
        """Whether he waits for text."""
        return self._ended_s is None and self._reads_until_s < now

    def idle_s(self, now: float) -> float:
        """Seconds that he has waited so far, the wait that goes on included."""
        return self._idle_s + (now - self._reads_until_s if self.is_idle(now) else 0.0)

    def read_tokens(self, now: float) -> int:
        """Tokens that he has come to, thinking not counted."""
        left_s = self._reads_until_s - now
        if left_s <= 0 or not self._delivered:
            return self._delivered
        done = self._habit.tokens(self._habit.seconds(self._delivered) - left_s)
        return max(0, min(self._delivered, math.floor(done + EPSILON_TOKENS) + 1))

    def unread_tokens(self, now: float) -> int:
        """Tokens that came and that he has not come to, thinking not counted."""
        return self._delivered - self.read_tokens(now)

    def pace_tok_s(self, now: float) -> float:
        """How fast he reads where he is."""
        return self._habit.pace_tok_s(max(0, self.read_tokens(now) - 1))

    def report(self, now: float) -> int | None:
        """The report that is due by now: how far in the answer he is, thinking counted.

        None: there is none, or nothing has changed since the last one.
        """
        every_s = self._report_every_s
        if every_s is None or now < self._next_report_s:
            return None
        self._next_report_s += every_s * (1 + math.floor((now - self._next_report_s) / every_s))
        if self._next_report_s <= now:  # the sum was rounded down
            self._next_report_s = now + every_s
        position = self._thinking + self.read_tokens(now)
        if position <= self._reported:
            return None
        self._reported = position
        self.reports += 1
        return position

    def _impatient_s(self) -> float:
        patience_s = self._reader.patience_s
        if patience_s is None or self._ended_s is not None:
            return math.inf
        return max(self._reads_until_s, self._last_sign_s) + patience_s

    def _comes_to_s(self, token: int) -> float:
        """When he comes to a token of the text that has just come, which he reads in one go."""
        rest_s = self._habit.seconds(self._delivered) - self._habit.seconds(token - 1)
        return self._reads_until_s - rest_s


def _check(reader: Reader) -> None:
    """Raises ValueError for a reader that cannot be."""
    for name in ("pace_tok_s", "skim_factor", "report_every_s", "patience_s"):
        value = getattr(reader, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be finite and > 0, is {value}")
    if not -1 < reader.drift_per_100_tokens < math.inf:
        raise ValueError(f"drift_per_100_tokens must be > -1, is {reader.drift_per_100_tokens}")
