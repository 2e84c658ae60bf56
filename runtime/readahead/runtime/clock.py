"""The only place that reads the machine's clocks."""

from __future__ import annotations

import time


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; comparable within one process only."""
    return time.monotonic()


def wall_ns() -> int:
    """Nanoseconds since the epoch; for records that people or other machines read."""
    return time.time_ns()
