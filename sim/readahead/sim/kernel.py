"""Virtual time: what is due, in one order that nothing outside can change."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

Action = Callable[[], object]


class Appointment:
    """Something that is due. Cancelled ones stay in the heap until they surface."""

    __slots__ = ("action", "at_s")

    def __init__(self, at_s: float, action: Action) -> None:
        self.at_s = at_s
        self.action: Action | None = action


class Kernel:
    """Runs actions in order of (time, order of making). It reads no clock and draws nothing."""

    __slots__ = ("_heap", "_order", "done", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        """Virtual time, seconds."""
        self.done = 0
        """Actions run so far."""
        self._heap: list[tuple[float, int, Appointment]] = []
        self._order = 0

    def at(self, at_s: float, action: Action) -> Appointment:
        """Makes an action due.

        Raises:
            ValueError: the time is not a number, or is over.
        """
        if not self.now_s <= at_s < math.inf:
            raise ValueError(f"at_s must be finite and >= {self.now_s!r} (now), got {at_s!r}")
        appointment = Appointment(at_s, action)
        self._order += 1
        heapq.heappush(self._heap, (at_s, self._order, appointment))
        return appointment

    def cancel(self, appointment: Appointment) -> None:
        """The action will not run; no error if it has."""
        appointment.action = None

    def run(self, until_s: float = math.inf) -> None:
        """Runs what is due, until nothing is or `until_s` is over; time then stands at the last
        action."""
        heap = self._heap
        while heap and heap[0][0] <= until_s:
            at_s, _, appointment = heapq.heappop(heap)
            action = appointment.action
            if action is None:
                continue
            appointment.action = None
            self.now_s = at_s
            self.done += 1
            action()
