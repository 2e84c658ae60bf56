"""A trace in memory: one array per column, so that millions of rows are cheap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blocks:
    """The prompts' blocks: equal ids have equal text."""

    ids: Integers
    """Of all rows, one after another."""
    ends: Integers
    """Where each row's blocks end in `ids`; the row before it tells where they begin."""
    block_tokens: int
    """Tokens of a block; a row's last one may be shorter."""

    def of(self, row: int) -> Integers:
        """The ids of one row's blocks, in the prompt's order."""
        return self.ids[self.ends[row - 1] if row else 0 : self.ends[row]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceColumns:
    """Rows of a trace in the order of their arrivals."""

    arrival_s: Floats
    """From the first row's arrival, ascending."""
    prompt_tokens: Integers
    output_tokens: Integers
    chats: Integers | None = None
    """Number of the conversation that a row belongs to, where the trace says; -1: unknown."""
    blocks: Blocks | None = None
    """Where the trace says which rows share text."""
    dropped: int = 0
    """Rows left out, because they have no prompt or no answer (failed requests)."""

    def __len__(self) -> int:
        return len(self.arrival_s)
