"""News of readers on their way to a worker, merged by leg while they wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from readahead.router.outbox import LegKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderNote:
    """What the router knows of a leg's reader."""

    pace_tok_s: float
    tokens_read: int | None
    """Of the leg's output; None: nothing is known of that."""
    at: float
    """When that was so, seconds on the router's clock."""


class ReaderMail:
    """The latest note of each reader; bounded by the legs alive."""

    def __init__(self) -> None:
        self._notes: dict[LegKey, ReaderNote] = {}
        self._has_mail = asyncio.Event()

    def put(self, key: LegKey, note: ReaderNote) -> None:
        """Puts a note in, in place of an earlier one of the same reader."""
        self._notes[key] = note
        self._has_mail.set()

    async def wait(self) -> None:
        """Returns once there is something to send."""
        if not self._notes:
            self._has_mail.clear()
            await self._has_mail.wait()

    def take(self, most: int) -> list[tuple[LegKey, ReaderNote]]:
        """Takes notes out, the longest waiting first."""
        taken = list(self._notes.items())[:most]
        for key, _ in taken:
            del self._notes[key]
        return taken
