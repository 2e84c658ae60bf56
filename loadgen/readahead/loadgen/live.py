"""A run's state so far, for whoever watches it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from readahead.core.reading.benefit import DEFAULT_FORM, benefit
from readahead.loadgen.records import Outcome
from readahead.workload.reading_run import ReaderRun

TTFT_WINDOW = 1000
"""First tokens that the live percentiles are of: the latest. Few, because they are sorted at each
refresh, on the loop that also sends."""


@dataclass(slots=True, kw_only=True)
class LiveCounts:
    """Counters that only grow, but for `running` and `readers`."""

    sent: int = 0
    running: int = 0
    dropped: int = 0
    skipped: int = 0
    """Turns that were never due: an earlier one of their session failed, or its reader left."""
    sessions: int = 0
    """That have begun."""
    tokens: int = 0
    """Received; a frame of unknown content counts as one."""
    benefit_tokens: float = 0.0
    """Tokens less the penalty for waiting (form F1, alpha 2.5), of requests with a reader that
    are over."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=TTFT_WINDOW))
    readers: dict[str, tuple[ReaderRun, float]] = field(default_factory=dict)
    """Of the answers that run, by request id, with their paces in tokens/s."""

    def started(self) -> None:
        """A request is being sent."""
        self.sent += 1
        self.running += 1

    def first_token(self, ttft_s: float) -> None:
        """A request has its first token, so long after its intended send time."""
        self.ttft_s.append(ttft_s)

    def ended(self, outcome: Outcome) -> None:
        """A request is over."""
        self.running -= 1
        self.outcomes[outcome] += 1

    def reads(self, request_id: str, reader: ReaderRun, *, pace_tok_s: float) -> None:
        """A request's reader has begun."""
        self.readers[request_id] = (reader, pace_tok_s)

    def stopped_reading(self, request_id: str, now_s: float) -> None:
        """His request is over."""
        reader, pace_tok_s = self.readers.pop(request_id)
        self.benefit_tokens += _benefit(reader, pace_tok_s, now_s)

    def idle_readers(self, now_s: float) -> int:
        """Users who wait for text now."""
        return sum(reader.is_idle(now_s) for reader, _ in self.readers.values())

    def smooth_goodput_tok_s(self, now_s: float) -> float:
        """So far, running answers as they stand; 0 before the start."""
        running = sum(_benefit(reader, pace, now_s) for reader, pace in self.readers.values())
        return (self.benefit_tokens + running) / now_s if now_s > 0 else 0.0


def _benefit(reader: ReaderRun, pace_tok_s: float, now_s: float) -> float:
    return benefit(
        DEFAULT_FORM, reader.idle_s(now_s), tokens=reader.delivered, pace_tok_s=pace_tok_s
    )
