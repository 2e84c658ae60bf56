"""A run's state so far, for whoever watches it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from readahead.loadgen.records import Outcome

TTFT_WINDOW = 1000
"""First tokens that the live percentiles are of: the latest. Few, because they are sorted at each
refresh, on the loop that also sends."""


@dataclass(slots=True, kw_only=True)
class LiveCounts:
    """Counters that only grow, but for `running`."""

    sent: int = 0
    running: int = 0
    dropped: int = 0
    tokens: int = 0
    """Received; a frame of unknown content counts as one."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    ttft_s: deque[float] = field(default_factory=lambda: deque(maxlen=TTFT_WINDOW))

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
