"""Reads a trace of any known format."""

from __future__ import annotations

import csv
import json
from enum import StrEnum
from pathlib import Path
from typing import TextIO, assert_never

from readahead.workload.columns import TraceColumns
from readahead.workload.traces.gathering import Gathering
from readahead.workload.traces.lines import TraceError, opened
from readahead.workload.traces.objects import (
    BAILIAN_BLOCK_TOKENS,
    MOONCAKE_BLOCK_TOKENS,
    BailianRows,
    add_load,
    add_mooncake,
    read_objects,
)
from readahead.workload.traces.tables import AZURE, BURSTGPT, COMPACT, read_table


class TraceFormat(StrEnum):
    """Of files of arrivals and lengths; each may be packed with gzip."""

    AZURE = "azure"
    """Azure LLM inference, 2023 and 2024: TIMESTAMP,ContextTokens,GeneratedTokens."""
    BURSTGPT = "burstgpt"
    """BurstGPT, 6 columns, or 8 with sessions."""
    COMPACT = "compact"
    """arrival_s,input_tokens,output_tokens, further columns ignored."""
    MOONCAKE = "mooncake"
    """JSON lines with milliseconds and blocks of 512 tokens."""
    BAILIAN = "bailian"
    """Qwen-Bailian: JSON lines with seconds, chats, and blocks of 16 tokens."""
    LOAD = "load"
    """Records of `readahead load`."""


_TABLES = {
    TraceFormat.AZURE: AZURE,
    TraceFormat.BURSTGPT: BURSTGPT,
    TraceFormat.COMPACT: COMPACT,
}
_KEYS = {
    TraceFormat.BAILIAN: {"chat_id", "parent_chat_id", "timestamp", "input_length", "hash_ids"},
    TraceFormat.MOONCAKE: {"timestamp", "input_length", "output_length", "hash_ids"},
    TraceFormat.LOAD: {"arrival_s", "prompt_tokens", "output_tokens"},
}


def read_trace(path: Path, trace_format: TraceFormat | None = None) -> TraceColumns:
    """All rows that can be replayed, by arrival; the first arrives at 0.

    Args:
        path: the file, plain or `.gz`.
        trace_format: None: told by the first line.

    Raises:
        TraceError: the file or a line of it cannot be used; names both.
    """
    if trace_format is None:
        with opened(path) as file:
            trace_format = sniffed(path, file.readline())
    with opened(path) as file:
        gathering = _read(path, file, trace_format)
    if not gathering.at_s:
        dropped = f", {gathering.dropped} without prompt or answer" if gathering.dropped else ""
        raise TraceError(path, None, f"has no request that can be replayed{dropped}")
    return gathering.columns()


def sniffed(path: Path, first_line: str) -> TraceFormat:
    """The format that a first line shows.

    Raises:
        TraceError: none; lists those that are known.
    """
    if first_line.lstrip().startswith("{"):
        try:
            row = json.loads(first_line)
        except ValueError as error:
            raise TraceError(path, 1, f"expected one JSON object per line: {error}") from error
        for trace_format, keys in _KEYS.items():
            if keys <= row.keys():
                return trace_format
    else:
        header = {name.strip() for name in next(csv.reader([first_line]), [])}
        for trace_format, table in _TABLES.items():
            if header.issuperset(table.needed):
                return trace_format
    tables = "; ".join(",".join(table.needed) for table in _TABLES.values())
    objects = "; ".join(",".join(sorted(keys)) for keys in _KEYS.values())
    raise TraceError(
        path,
        1,
        f"is of no known format; expected a CSV header with {tables}, or JSON lines with {objects}",
    )


def _read(path: Path, file: TextIO, trace_format: TraceFormat) -> Gathering:
    match trace_format:
        case TraceFormat.AZURE | TraceFormat.BURSTGPT | TraceFormat.COMPACT:
            return read_table(path, file, _TABLES[trace_format])
        case TraceFormat.MOONCAKE:
            blocks = Gathering(block_tokens=MOONCAKE_BLOCK_TOKENS)
            return read_objects(path, file, blocks, add_mooncake)
        case TraceFormat.BAILIAN:
            blocks = Gathering(block_tokens=BAILIAN_BLOCK_TOKENS)
            return read_objects(path, file, blocks, BailianRows().add)
        case TraceFormat.LOAD:
            return read_objects(path, file, Gathering(), add_load)
        case _:
            assert_never(trace_format)
