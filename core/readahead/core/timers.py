"""Deadlines by key: set, moved, cancelled, and taken when due."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Timers(Generic[Key]):
    """One deadline per key. Setting a key again moves its deadline.

    Cancelled entries stay in the heap until they surface; once they outnumber the live ones the
    heap is rebuilt, so memory stays within twice the number of live keys.
    """

    def __init__(self) -> None:
        self._at: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: Key) -> bool:
        return key in self._at

    def set(self, key: Key, at: float) -> None:
        """Makes `key` due at `at`, whatever it was before."""
        self._sequence += 1
        self._at[key] = (at, self._sequence)
        heapq.heappush(self._heap, (at, self._sequence, key))
        if len(self._heap) > 2 * len(self._at) + 64:
            self._heap = [(when, order, each) for each, (when, order) in self._at.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: Key) -> None:
        """Forgets `key`; no error if it is not set."""
        self._at.pop(key, None)

    def next_at(self) -> float | None:
        """The earliest deadline, or None."""
        while self._heap:
            at, order, key = self._heap[0]
            if self._at.get(key) == (at, order):
                return at
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> list[Key]:
        """Takes out every key whose deadline has come, earliest first; ties in order of setting."""
        due: list[Key] = []
        while (at := self.next_at()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            due.append(key)
        return due
