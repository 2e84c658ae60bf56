"""Arrivals as somebody recorded them."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from readahead.core.config import Checked
from readahead.workload.arrivals import require_positive, require_rate
from readahead.workload.columns import Floats, TraceColumns
from readahead.workload.traces.formats import TraceFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceArrivals(Checked):
    """A trace, or a slice of one, stretched to a wanted rate; its rows may give lengths too."""

    kind: Literal["trace"] = "trace"
    path: Path
    """File, `.gz` or plain; in a workload file relative to that file's folder."""
    format: TraceFormat | None = None
    """None: told by its first line."""
    rate_req_s: float | None = None
    """Wanted mean rate of the slice; None: as recorded."""
    start_s: float = 0.0
    """Where the slice begins, in recorded time from the trace's first row."""
    end_s: float | None = None
    """Where it ends, itself excluded; None: with the trace."""
    spread_s: float = 0.0
    """Stamps stand for slots of this length: rows of one stamp are spread evenly at random over
    theirs. 3 for Mooncake's."""
    is_endless: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.rate_req_s is not None:
            require_rate("arrivals.rate_req_s", self.rate_req_s)
        if not 0 <= self.start_s < math.inf:
            raise ValueError(f"arrivals.start_s must be at least 0, seconds, got {self.start_s!r}")
        if self.end_s is not None and not self.start_s < self.end_s < math.inf:
            raise ValueError(
                f"arrivals.end_s must be above arrivals.start_s = {self.start_s:g}, seconds, "
                f"got {self.end_s!r}"
            )
        if self.spread_s:
            require_positive("arrivals.spread_s", self.spread_s, "seconds")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """What of a trace is replayed, and when."""

    rows: TraceColumns
    times_s: Floats
    """From the run's start, ascending."""
    first_row: int
    """Row of `rows` that arrives first; the others follow it."""


def replay(arrivals: TraceArrivals, rows: TraceColumns, rng: random.Random) -> Replay:
    """Spreads, slices and stretches, in this order.

    The slice's mean rate is its rows over its length. A slice that ends with the trace has the
    length up to its last row's arrival.

    Raises:
        ValueError: no row is in the slice, or it has no length to stretch.
    """
    at_s = spread(rows.arrival_s, arrivals.spread_s, rng)
    first = int(np.searchsorted(at_s, arrivals.start_s, side="left"))
    end = len(at_s)
    if arrivals.end_s is not None:
        end = int(np.searchsorted(at_s, arrivals.end_s, side="left"))
    if first == end:
        raise ValueError(
            f"arrivals.start_s, arrivals.end_s: no row of {arrivals.path} is in the slice; "
            f"the trace goes from 0 to {at_s[-1]:g} s"
        )
    times_s = at_s[first:end] - arrivals.start_s
    if arrivals.rate_req_s is not None:
        length_s = float(times_s[-1])
        if arrivals.end_s is not None:
            length_s = arrivals.end_s - arrivals.start_s
        if not length_s:
            raise ValueError(
                f"arrivals.rate_req_s: all rows of {arrivals.path} that are in the slice arrive "
                "at once, so that they have no rate"
            )
        times_s = times_s * ((end - first) / length_s / arrivals.rate_req_s)
    return Replay(rows=rows, times_s=times_s, first_row=first)


def spread(stamps_s: Floats, slot_s: float, rng: random.Random) -> Floats:
    """Times within the slots that the stamps begin, ascending, rows in their order.

    A slot ends with the next stamp, if that comes sooner.
    """
    if not slot_s:
        return stamps_s
    begins_s, slots = np.unique(stamps_s, return_inverse=True)
    lengths_s = np.minimum(np.append(np.diff(begins_s), math.inf), slot_s)
    parts = np.fromiter((rng.random() for _ in range(len(stamps_s))), np.float64, len(stamps_s))
    parts = parts[np.lexsort((parts, slots))]
    times_s: Floats = begins_s[slots] + parts * lengths_s[slots]
    return times_s
