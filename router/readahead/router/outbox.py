"""What is to be told to a worker and waits for no answer, merged while it waits."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from readahead.core.request import RequestId

_REPEAT_S = 1.0
"""A leg that was cancelled is not cancelled again within this: news of it is on its way anyway."""
_REMEMBERED_MAX = 4096
"""Cancels remembered for that; forgetting one costs at most one call too many."""
_ATTEMPT_BITS = 16
"""Of a leg's number. A refused try is tried again after a quarter of a second, for a minute."""


class LegKey(NamedTuple):
    """Names a leg, and after a prefill leg its handover."""

    request_id: RequestId
    attempt: int
    """As workers know it: see `leg_number`."""


def leg_number(attempt: int, *, move: int) -> int:
    """What workers know as a leg's attempt.

    A leg that moves gets another number at its new worker, so that one which comes back there is
    not taken for the one that left: late news and late cancels of that are stale.

    Args:
        attempt: the core's.
        move: the number of the move that brought the leg where it is; 0: none did.
    """
    assert attempt < 1 << _ATTEMPT_BITS, attempt
    return attempt | move << _ATTEMPT_BITS


class Outbox:
    """Cancels, renewals, releases and calls for legs to go on, for one worker.

    Each is a set of legs, so it is bounded by the requests alive; a release drops the renewal of
    the same handover.
    """

    def __init__(self) -> None:
        self._cancels: dict[LegKey, None] = {}
        self._renewals: dict[LegKey, None] = {}
        self._releases: dict[LegKey, None] = {}
        self._resumes: dict[LegKey, int] = {}
        self._cancelled_at: dict[LegKey, float] = {}
        self._has_mail = asyncio.Event()

    def cancel(self, key: LegKey, *, now: float) -> None:
        """Puts a cancel in, unless there was one a moment ago."""
        cancelled_at = self._cancelled_at.pop(key, None)
        if cancelled_at is not None and now - cancelled_at < _REPEAT_S:
            self._cancelled_at[key] = cancelled_at
            return
        if len(self._cancelled_at) >= _REMEMBERED_MAX:
            del self._cancelled_at[next(iter(self._cancelled_at))]
        self._cancelled_at[key] = now
        self._cancels[key] = None
        self._has_mail.set()

    def renew(self, key: LegKey) -> None:
        """Puts a renewal in."""
        self._renewals[key] = None
        self._has_mail.set()

    def release(self, key: LegKey) -> None:
        """Puts a release in."""
        self._renewals.pop(key, None)
        self._releases[key] = None
        self._has_mail.set()

    def resume(self, key: LegKey, *, move: int) -> None:
        """Puts in that a leg is to go on, since this move of it is called off."""
        self._resumes[key] = move
        self._has_mail.set()

    async def wait(self) -> None:
        """Returns once there is something to send."""
        if not (self._cancels or self._renewals or self._releases or self._resumes):
            self._has_mail.clear()
            await self._has_mail.wait()

    def take_cancels(self, most: int) -> list[LegKey]:
        """Takes out the oldest cancels."""
        return _take(self._cancels, most)

    def take_renewals(self, most: int) -> list[LegKey]:
        """Takes out the oldest renewals."""
        return _take(self._renewals, most)

    def take_releases(self, most: int) -> list[LegKey]:
        """Takes out the oldest releases."""
        return _take(self._releases, most)

    def take_resumes(self) -> dict[LegKey, int]:
        """Takes them all out: the number of the move by leg. No more than moves at once."""
        taken, self._resumes = self._resumes, {}
        return taken


def _take(keys: dict[LegKey, None], most: int) -> list[LegKey]:
    taken = list(keys)[:most]
    for key in taken:
        del keys[key]
    return taken
