"""Traces that are CSV tables: Azure's, BurstGPT's, and the compact form."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from readahead.workload.traces.gathering import Gathering
from readahead.workload.traces.lines import TraceError


def _clock_s(text: str) -> float:
    """Seconds since 1970 of `2023-11-16 18:15:46.6805900`; UTC where no zone is given."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Which columns of a CSV file say what."""

    time: str
    prompt: str
    output: str
    chat: str | None = None
    """Column that names the conversation; a file without it is read all the same."""
    to_seconds: Callable[[str], float] = float
    time_is: str = "seconds"

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that a file must have."""
        return (self.time, self.prompt, self.output)


AZURE = Table(
    time="TIMESTAMP",
    prompt="ContextTokens",
    output="GeneratedTokens",
    to_seconds=_clock_s,
    time_is="date and time",
)
BURSTGPT = Table(
    time="Timestamp", prompt="Request tokens", output="Response tokens", chat="Session ID"
)
COMPACT = Table(time="arrival_s", prompt="input_tokens", output="output_tokens")


def read_table(path: Path, file: TextIO, table: Table) -> Gathering:
    """All rows.

    Raises:
        TraceError: a column is missing, or a line is malformed.
    """
    rows = csv.reader(file)
    try:
        header = [name.strip() for name in next(rows, [])]
        missing = [name for name in table.needed if name not in header]
        if missing:
            raise TraceError(path, 1, f"expected the columns {', '.join(table.needed)}; {header}")
        return _gathered(path, rows, table, header)
    except csv.Error as error:
        raise TraceError(path, rows.line_num, f"is not CSV: {error}") from error


def _gathered(
    path: Path, rows: Iterator[list[str]], table: Table, header: Sequence[str]
) -> Gathering:
    time, prompt, output = (header.index(name) for name in table.needed)
    chat = header.index(table.chat) if table.chat in header else None
    to_seconds, gathering = table.to_seconds, Gathering()
    for line, cells in enumerate(rows, 2):
        if not cells:
            continue
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} fields")
            if gathering.add(to_seconds(cells[time]), int(cells[prompt]), int(cells[output])) and (
                chat is not None
            ):
                gathering.add_chat(cells[chat])
        except ValueError as error:
            raise TraceError(
                path,
                line,
                f"{error}; expected {len(header)} fields with {table.time} in {table.time_is}, "
                f"{table.prompt} and {table.output} in whole tokens",
            ) from error
    return gathering
