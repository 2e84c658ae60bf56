"""Columns while a file is read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from readahead.workload.columns import Blocks, TraceColumns

TOKENS_MAX = 100_000_000
"""More than any model takes; a larger number is a broken field."""


@dataclass(slots=True, kw_only=True)
class Gathering:
    """Rows so far, in the file's order."""

    block_tokens: int | None = None
    """Tokens of a block, where rows have blocks."""
    at_s: array[float] = field(default_factory=lambda: array("d"))
    prompt_tokens: array[int] = field(default_factory=lambda: array("q"))
    output_tokens: array[int] = field(default_factory=lambda: array("q"))
    chats: array[int] = field(default_factory=lambda: array("q"))
    ids: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    dropped: int = 0
    _numbers: dict[Hashable, int] = field(default_factory=dict)

    def add(self, at_s: float, prompt_tokens: int, output_tokens: int) -> bool:
        """One row; false: it was dropped, as it has no prompt or no answer.

        Raises:
            ValueError: the time is not finite, or a length is negative or absurd.
        """
        if not -math.inf < at_s < math.inf:
            raise ValueError(f"the time must be finite, got {at_s!r}")
        if not (0 <= prompt_tokens <= TOKENS_MAX and 0 <= output_tokens <= TOKENS_MAX):
            raise ValueError(
                f"lengths must be in 0..{TOKENS_MAX} tokens, "
                f"got {prompt_tokens} and {output_tokens}"
            )
        if not prompt_tokens or not output_tokens:
            self.dropped += 1
            return False
        self.at_s.append(at_s)
        self.prompt_tokens.append(prompt_tokens)
        self.output_tokens.append(output_tokens)
        return True

    def add_blocks(self, ids: Sequence[int]) -> None:
        """The blocks of the row added last."""
        self.ids.extend(ids)
        self.ends.append(len(self.ids))

    def add_chat(self, chat: Hashable) -> None:
        """The conversation of the row added last; anything that names it."""
        self.chats.append(self._numbers.setdefault(chat, len(self._numbers)))

    def columns(self) -> TraceColumns:
        """All rows by arrival, those of one time in the file's order."""
        at_s = np.frombuffer(self.at_s, dtype=np.float64)
        order = None
        if np.any(at_s[1:] < at_s[:-1]):
            order = np.argsort(at_s, kind="stable")
            at_s = at_s[order]

        def by_arrival(column: array[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
            values = np.frombuffer(column, dtype=np.int64)
            return values if order is None else values[order]

        return TraceColumns(
            arrival_s=at_s - at_s[0],
            prompt_tokens=by_arrival(self.prompt_tokens),
            output_tokens=by_arrival(self.output_tokens),
            chats=by_arrival(self.chats) if self.chats else None,
            blocks=self._blocks(order),
            dropped=self.dropped,
        )

    def _blocks(self, order: np.ndarray[tuple[int], np.dtype[np.int64]] | None) -> Blocks | None:
        if self.block_tokens is None:
            return None
        ids = np.frombuffer(self.ids, dtype=np.int64)
        ends = np.frombuffer(self.ends, dtype=np.int64)
        if order is not None:
            rows = np.split(ids, ends[:-1])
            ids = np.concatenate([rows[row] for row in order])
            ends = np.cumsum([len(rows[row]) for row in order])
        return Blocks(ids=ids, ends=ends, block_tokens=self.block_tokens)
