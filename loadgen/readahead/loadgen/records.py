"""What happened to each request, and the file that keeps it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Self

from readahead.workload.slo import SloClass

QUEUE_RECORDS_MAX = 4096
"""Records that wait for the disk. At the limit a finished request waits to hand its record in:
nothing is lost, and no request that runs is touched."""


class Outcome(StrEnum):
    """How a request ended, as its sender saw it."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    """By us: its reader left, or the run was interrupted; the record's cause says which."""
    FAILED = "failed"
    REJECTED = "rejected"
    """Refused for want of room, before any work was done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Where in the workload a request belongs."""

    session_id: str
    turn: int
    """From 0 on."""
    scenario: str
    tenant: str
    user: str
    thinking_tokens: int = 0
    """So many of the output tokens were planned as thinking, which nobody reads."""
    has_reader: bool = True
    """False: a program takes the answer."""
    slo: SloClass | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the request's reader did, as the generator simulated him while it ran."""

    idle_s: float
    """That he waited for text, by the end of the request."""
    stalls: int
    read_tokens: int
    """That he had come to by then, thinking not counted."""
    finished_s: float | None
    """When he comes to the end of the answer; None: he does not."""
    reports: int
    """Of his progress, that the system was sent while it ran."""
    is_pace_told: bool
    """Whether the request said his pace."""


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
    """How fast its user reads when he begins; None: nobody reads it, or nobody knows."""
    outcome: Outcome
    error: str | None
    cause: str | None = None
    """Why it did not finish, in a word: a `Cause`, or a `Leaving`."""
    verdict: str = ""
    """Of the target's planner, where it says one."""
    visit: Visit | None = None
    reading: Reading | None = None

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
        if self.cause is not None:
            fields["cause"] = self.cause
        if self.error is not None:
            fields["error"] = self.error
        if self.verdict:
            fields["verdict"] = self.verdict
        if self.visit is not None:
            fields |= _visit_fields(self.visit)
        if self.reading is not None:
            fields |= _reading_fields(self.reading)
        return json.dumps(fields, separators=(",", ":"))


def _visit_fields(visit: Visit) -> dict[str, object]:
    fields: dict[str, object] = {
        name: getattr(visit, name) for name in ("session_id", "turn", "scenario", "tenant", "user")
    }
    if visit.thinking_tokens:
        fields["thinking_tokens"] = visit.thinking_tokens
    if not visit.has_reader:
        fields["has_reader"] = False
    if visit.slo is not None:
        promised = dataclasses.asdict(visit.slo)
        fields["slo_class"] = {name: one for name, one in promised.items() if one is not None}
    return fields


def _reading_fields(reading: Reading) -> dict[str, object]:
    fields: dict[str, object] = {
        "reader_idle_s": round(reading.idle_s, 6),
        "reader_stalls": reading.stalls,
        "reader_tokens": reading.read_tokens,
        "reports_sent": reading.reports,
    }
    if reading.finished_s is not None:
        fields["reader_finished_s"] = round(reading.finished_s, 6)
    if not reading.is_pace_told:
        fields["is_pace_told"] = False
    return fields


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
