"""Requests of like length side by side: what is done token by token is done for many at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from readahead.ruler.run import Flags, Floats, Integers, Run

CELLS_MAX = 1 << 18
"""Token times in one matrix: 2 MiB, which the processor's cache mostly holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Some requests with tokens, a row each. Rows are padded with their last time."""

    requests: Integers
    """Their places in the run."""
    times_s: Floats
    lengths: Integers

    @property
    def is_token(self) -> Flags:
        """Which cells are tokens, and not padding."""
        flags: Flags = np.arange(self.times_s.shape[1]) < self.lengths[:, np.newaxis]
        return flags


def matrices(run: Run) -> Iterator[Matrix]:
    """All requests that have a token, the shortest first."""
    tokens = run.tokens
    order = np.argsort(tokens, kind="stable")
    order = order[tokens[order] > 0]
    start = 0
    while start < len(order):
        # As many rows as fit at the length of the last of them.
        lengths = tokens[order[start : start + CELLS_MAX]]
        rows = np.arange(1, len(lengths) + 1)
        fitting = int(np.searchsorted(rows * lengths, CELLS_MAX, side="right"))
        end = start + max(1, fitting)
        requests = order[start:end]
        width = int(tokens[order[end - 1]])
        places = np.minimum(
            run.offsets[requests][:, np.newaxis] + np.arange(width),
            run.offsets[requests + 1][:, np.newaxis] - 1,
        )
        yield Matrix(requests=requests, times_s=run.times_s[places], lengths=tokens[requests])
        start = end
