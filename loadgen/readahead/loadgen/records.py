"""What happened to each request, and the file that keeps it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Self

QUEUE_RECORDS_MAX = 4096
"""Records that wait for the disk. At the limit a finished request waits to hand its record in:
nothing is lost, and no request that runs is touched."""


class Outcome(StrEnum):
    """How a request ended, as its sender saw it."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    """By us: the run was interrupted."""
    FAILED = "failed"
    REJECTED = "rejected"
    """Refused for want of room, before any work was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request. All times are seconds from the run's start, on one clock."""

    request_id: str
    arrival_s: float
    """Intended send time."""
    sent_s: float
    ended_s: float
    frame_times_s: Sequence[float]
    """When each frame with text or tokens was received."""
    token_counts: Sequence[int]
    """Tokens in each frame."""
    are_counts_estimated: bool
    """The server did not say how many tokens a frame holds; spread by length of text."""
    prompt_tokens: int
    output_tokens: int
    pace_tok_s: float | None
    outcome: Outcome
    error: str | None

    @property
    def token_times_s(self) -> list[float]:
        """When each token was received; those of one frame, together."""
        pairs = zip(self.frame_times_s, self.token_counts, strict=True)
        return list(itertools.chain.from_iterable([at_s] * count for at_s, count in pairs))

    def to_json(self) -> str:
        """One line of docs/reference/load-jsonl.md, without its end."""
        fields: dict[str, object] = {
            "request_id": self.request_id,
            "arrival_s": round(self.arrival_s, 6),
            "sent_s": round(self.sent_s, 6),
            "ended_s": round(self.ended_s, 6),
            "token_times_s": [round(at_s, 6) for at_s in self.token_times_s],
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
            "outcome": self.outcome.value,
        }
        if any(count != 1 for count in self.token_counts):
            fields["token_counts"] = list(self.token_counts)
        if self.are_counts_estimated:
            fields["token_counts_estimated"] = True
        if self.pace_tok_s is not None:
            fields["pace_tok_s"] = self.pace_tok_s
        if self.error is not None:
            fields["error"] = self.error
        return json.dumps(fields, separators=(",", ":"))


class RecordFile:
    """Writes records as they come, off the event loop. A disk that fails does not stop the run:
    the failure is kept in `error`, and the records from there on are counted as `lost`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: asyncio.Queue[Record | None] = asyncio.Queue(QUEUE_RECORDS_MAX)
        self._file: IO[str] | None = None
        self._tasks = asyncio.TaskGroup()
        self.error: OSError | None = None
        self.lost = 0

    async def __aenter__(self) -> Self:
        """Opens the file.

        Raises:
            OSError: it cannot be written.
        """
        self._file = await asyncio.to_thread(self._path.open, "w", encoding="utf-8")
        await self._tasks.__aenter__()
        self._tasks.create_task(self._write_all(self._file))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._queue.put(None)
        await self._tasks.__aexit__(None, None, None)

    async def add(self, record: Record) -> None:
        """Hands a record in; waits only while the disk is far behind."""
        await self._queue.put(record)

    async def _write_all(self, file: IO[str]) -> None:
        is_last = False
        while not is_last:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            is_last = batch[-1] is None
            records = [record for record in batch if record is not None]
            await self._attempt(file, records)
        try:
            await asyncio.to_thread(file.close)
        except OSError as error:  # the last bytes are written by close()
            self.error = self.error or error

    async def _attempt(self, file: IO[str], records: Sequence[Record]) -> None:
        if self.error is None:
            try:
                await asyncio.to_thread(_write, file, records)
            except OSError as error:
                self.error = error
        if self.error is not None:
            self.lost += len(records)


def _write(file: IO[str], records: Sequence[Record]) -> None:
    for record in records:
        file.write(record.to_json() + "\n")
    file.flush()
