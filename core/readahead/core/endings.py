"""What is remembered of requests that have ended."""

from __future__ import annotations

from collections import OrderedDict

from readahead.core.messages import Explanation
from readahead.core.request import RequestId, Stage

ENDED_MAX = 1024
"""Ended requests kept for Explain; about a minute's worth at 16 requests a second."""

RETRY_AFTER_S_MIN = 0.1
"""A shorter hint is a hammer."""

RETRY_AFTER_S_MAX = 30.0
"""A longer one is a guess."""

FIRST_GAP_S = 0.1
"""Assumed time between two answers before any has ended."""

GAP_WEIGHT = 0.1
"""Of the latest gap in the moving mean: some ten answers of memory."""


class Endings:
    """The last requests that ended, and how fast they end."""

    def __init__(self) -> None:
        self._ended: OrderedDict[RequestId, Explanation] = OrderedDict()
        self._gap_s = FIRST_GAP_S
        self._last_at: float | None = None

    def add(self, explanation: Explanation, *, now: float) -> None:
        """Keeps one, and forgets the oldest beyond ENDED_MAX."""
        self._ended[explanation.request_id] = explanation
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        if explanation.stage is Stage.FINISHED:
            if self._last_at is not None:
                self._gap_s += GAP_WEIGHT * (now - self._last_at - self._gap_s)
            self._last_at = now

    def get(self, request_id: RequestId) -> Explanation | None:
        """How it ended, if it is still remembered."""
        return self._ended.get(request_id)

    def retry_after_s(self, waiting: int) -> float:
        """Seconds until so many waiting requests will have been served, within bounds."""
        return min(RETRY_AFTER_S_MAX, max(RETRY_AFTER_S_MIN, waiting * self._gap_s))
