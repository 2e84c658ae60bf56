"""Large memory for KV on the host.

The first touch of fresh memory costs more than a copy: each page is a trap. So what is large is
taken once and used again, in huge pages where the system has them.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from contextlib import suppress


def fresh_memory(size_bytes: int) -> mmap.mmap:
    """Private zeros, whose pages the system gives on first use.

    Raises:
        OSError: there is no room for it.
    """
    memory = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Buffers:
    """Pieces of one size, given back by whoever took them. Any thread may call.

    There are as many as were out at once.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._free: list[mmap.mmap] = []

    def take(self) -> mmap.mmap:
        """One that nobody else has."""
        try:
            return self._free.pop()
        except IndexError:
            return fresh_memory(self.size_bytes)

    def give(self, buffer: mmap.mmap) -> None:
        """Gives one back. Nobody looks at it any more."""
        self._free.append(buffer)


def runs_of(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts a sequence of row numbers where one does not follow the one before it.

    Returns:
        Positions (begin, end) of each piece, in order; end is not in it.
    """
    edges = [at for at in range(1, len(rows)) if rows[at] != rows[at - 1] + 1]
    return list(zip([0, *edges], [*edges, len(rows)], strict=True)) if rows else []
