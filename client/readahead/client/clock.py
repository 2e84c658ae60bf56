"""The SDK's clock; it stands on the generated stubs alone, so it has its own."""

from __future__ import annotations

import time


def monotonic_s() -> float:
    """Seconds on a clock that never goes back."""
    return time.monotonic()  # noqa: TID251 - the one reader of the clock in this package


def sleep_s(seconds: float) -> None:
    """Blocks this thread for so long."""
    time.sleep(seconds)
