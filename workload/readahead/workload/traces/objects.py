"""Traces with one JSON object per line: Mooncake's, Qwen-Bailian's, and our own records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from readahead.workload.traces.gathering import Gathering
from readahead.workload.traces.lines import TraceError

MOONCAKE_BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16
ROOT_CHAT = -1
"""Parent of a conversation's first request."""

Row = Mapping[str, object]
AddRow = Callable[[Gathering, Row], None]


def _number(row: Row, name: str) -> float:
    value = row.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return value


def _whole(row: Row, name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}")
    return value


def _block_ids(row: Row, prompt_tokens: int, block_tokens: int) -> list[int]:
    ids = row.get("hash_ids")
    if not isinstance(ids, list) or not all(type(one) is int for one in ids):
        raise ValueError("hash_ids must be a list of whole numbers")
    blocks = -(-prompt_tokens // block_tokens)
    if len(ids) != blocks:
        raise ValueError(
            f"hash_ids must have {blocks} blocks of {block_tokens} tokens for {prompt_tokens} "
            f"tokens, has {len(ids)}"
        )
    return ids


def add_mooncake(gathering: Gathering, row: Row) -> None:
    """Times in milliseconds."""
    prompt_tokens = _whole(row, "input_length")
    ids = _block_ids(row, prompt_tokens, MOONCAKE_BLOCK_TOKENS)
    if gathering.add(_number(row, "timestamp") / 1000, prompt_tokens, _whole(row, "output_length")):
        gathering.add_blocks(ids)


@dataclass(slots=True)
class BailianRows:
    """Knows of each request which conversation it belongs to."""

    _roots: dict[int, int] = field(default_factory=dict)

    def add(self, gathering: Gathering, row: Row) -> None:
        """Times in seconds; a row's prompt holds the turns before it."""
        chat, parent = _whole(row, "chat_id"), _whole(row, "parent_chat_id")
        root = chat if parent == ROOT_CHAT else self._roots.get(parent, parent)
        self._roots[chat] = root
        prompt_tokens = _whole(row, "input_length")
        ids = _block_ids(row, prompt_tokens, BAILIAN_BLOCK_TOKENS)
        if gathering.add(_number(row, "timestamp"), prompt_tokens, _whole(row, "output_length")):
            gathering.add_blocks(ids)
            gathering.add_chat(root)


def add_load(gathering: Gathering, row: Row) -> None:
    """A record of `readahead load`."""
    gathering.add(
        _number(row, "arrival_s"), _whole(row, "prompt_tokens"), _whole(row, "output_tokens")
    )


def read_objects(path: Path, file: TextIO, gathering: Gathering, add: AddRow) -> Gathering:
    """All rows.

    Raises:
        TraceError: a line is malformed.
    """
    for line, text in enumerate(file, 1):
        if text.isspace():
            continue
        try:
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError(f"expected a JSON object, got {type(row).__name__}")
            add(gathering, row)
        except (ValueError, OverflowError) as error:
            raise TraceError(path, line, _said(error)) from error
    return gathering


def _said(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"expected one JSON object per line: {error.msg} at column {error.colno}"
    return str(error)
