"""When a client gets its next frame: at once, unless its reader has text left for seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from readahead.core.reading.clock import ReadingClock

SLACK_SHARE = 0.05
"""Most of a reader's slack that a frame may wait: he is never made to wait himself, and a buffer
that runs low gets each token at once."""


LOOKS_PER_GAP = 4
"""How often held frames are looked at: each is at most a quarter of the gap late."""


class Held(Protocol):
    """Somebody whose frame waits."""

    def wake_if_due(self, now: float) -> bool:
        """Gives its door the frame, if it has waited long enough. True iff it waits no longer."""
        ...


class FrameHold:
    """Wakes those whose frames wait: one timer for all, since one each costs more than a token.

    Mostly the next engine step comes first and wakes them. Idle while nobody waits.
    """

    def __init__(self, *, gap_s_max: float, now: Callable[[], float]) -> None:
        self._look_s = gap_s_max / LOOKS_PER_GAP
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._held: dict[Held, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where all of this lives; asking asyncio for it costs a system call."""
        return self._loop

    def add(self, held: Held) -> None:
        """Looks after one until it is due or discarded."""
        self._held[held] = None
        if self._timer is None:
            self._timer = self._loop.call_later(self._look_s, self._look)

    def discard(self, held: Held) -> None:
        """No error if it does not wait."""
        self._held.pop(held, None)

    def close(self) -> None:
        """Forgets everyone."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._now()
        for held in list(self._held):
            if held.wake_if_due(now):
                self._held.pop(held, None)
        self._timer = self._loop.call_later(self._look_s, self._look) if self._held else None


class FrameGap:
    """Spaces one client's frames.

    A frame costs the router some ten times what a token in it costs, most of that in gRPC. While
    the reader has text left, tokens of a few engine steps share a frame; the last frame never
    waits. What he has left is what went out in frames, by his reading clock. Without one, nobody
    reads until the end, and each frame may wait its whole time.
    """

    __slots__ = ("_clock", "_framed_at", "_gap_s_max")

    def __init__(self, clock: ReadingClock | None, *, gap_s_max: float) -> None:
        self._clock = clock
        self._gap_s_max = gap_s_max
        self._framed_at = float("-inf")

    def frame(self, now: float) -> None:
        """The client takes a frame."""
        self._framed_at = now

    def wait_s(self, now: float) -> float:
        """How long the next frame should still wait; 0 or less for not at all."""
        if not self._gap_s_max:
            return 0.0
        gap_s = self._gap_s_max
        if self._clock is not None:
            gap_s = min(gap_s, SLACK_SHARE * self._clock.slack_s(now))
        return self._framed_at + gap_s - now
