"""Time in cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from readahead.core.reading.score import Ruler
from readahead.ruler.run import Floats
from readahead.sim.bound.known import KnownRequest

GROWTH = 1.2
"""How much longer each cell is than the one before, once nobody comes any more."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Cells between these times, and after the last of them one without end, in which engines are
    as fast as one likes. The first is no later than the first arrival."""

    edges_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.edges_s or any(b <= a for a, b in pairwise(self.edges_s)):
            raise ValueError(f"edges_s must be there and ascend, are {self.edges_s}")

    def check(self, requests: Sequence[KnownRequest]) -> None:
        """Sees to it that no request came before the first cell.

        Raises:
            ValueError: one did; names it.
        """
        for one in requests:
            if one.arrival_s < self.edges_s[0]:
                raise ValueError(f"{one.request_id} came before the grid, at {one.arrival_s} s")

    @property
    def starts_s(self) -> Floats:
        """When each cell begins."""
        return np.array(self.edges_s)

    @property
    def ends_s(self) -> Floats:
        """When each cell ends."""
        return np.array([*self.edges_s[1:], np.inf])


def graded_grid(requests: Sequence[KnownRequest], ruler: Ruler, *, cells: int) -> Grid:
    """Half of the cells, of one length, from the first arrival to the last; then ever longer ones
    to when no answer is worth its wait under F1: its user has had time to read it, and n / (alpha
    v) more. Any other grid is as valid; this one is fine where queues are.

    Raises:
        ValueError: there are no requests, or fewer than two cells.
    """
    if cells < 2 or not requests:
        raise ValueError(f"a grid needs requests and cells, got {len(requests)} and {cells}")
    first_s = min(request.arrival_s for request in requests)
    last_s = max(request.arrival_s for request in requests)
    end_s = last_s
    for request in requests:
        read_s = request.output_tokens / (request.pace_tok_s or ruler.pace_tok_s)
        end_s = max(end_s, request.arrival_s + read_s * (1 + 1 / max(0.1, ruler.alpha)))
    early_s = np.linspace(first_s, last_s, cells // 2 + 1)
    growth = GROWTH ** np.arange(cells - cells // 2 + 1) - 1
    late_s = last_s + (end_s - last_s) * growth / growth[-1]
    return Grid(tuple(np.unique(np.concatenate([early_s, late_s])).tolist()))
