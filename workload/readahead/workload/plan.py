"""The plan of a run: who comes when and what he does, all known before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from readahead.workload.arrivals import ClosedLoop
from readahead.workload.columns import Floats, Integers
from readahead.workload.session import Session
from readahead.workload.sources import Source, sources
from readahead.workload.spec import WorkloadSpec
from readahead.workload.spec_problems import WorkloadError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Sessions in the order of their arrivals, made when they are asked for.

    Iterating twice gives equal sessions. Each follows from the seed and its own number alone, so
    they may be made in any order, in several processes too.
    """

    spec: WorkloadSpec
    arrivals_s: Floats
    """Of all sessions, ascending; all 0 in a closed loop, where they have no times."""
    dropped: int
    """Rows of traces that cannot be replayed: no prompt or no answer."""
    _sources: tuple[Source, ...]
    _source_of: Integers | None
    """Number of each session's source; None: there is but one."""
    _index_of: Integers | None
    """Each session's number within its source."""

    def __len__(self) -> int:
        return len(self.arrivals_s)

    def __iter__(self) -> Iterator[Session]:
        makers = [source.maker() for source in self._sources]
        if self._source_of is None or self._index_of is None:
            yield from map(makers[0].make, range(len(self)))
            return
        for source, index in zip(self._source_of, self._index_of, strict=True):
            yield makers[source].make(int(index))

    def session(self, number: int) -> Session:
        """The session of that number, from 0."""
        if not 0 <= number < len(self):
            raise IndexError(f"session must be in 0..{len(self) - 1}, got {number}")
        if self._source_of is None or self._index_of is None:
            return self._sources[0].maker().make(number)
        source = self._sources[int(self._source_of[number])]
        return source.maker().make(int(self._index_of[number]))

    @property
    def concurrency(self) -> int | None:
        """Sessions in flight in a closed loop; None: an open loop, at the arrivals' times."""
        arrivals = self.spec.arrivals
        return arrivals.concurrency if isinstance(arrivals, ClosedLoop) else None

    @property
    def duration_s(self) -> float:
        """Time until the last arrival; 0 in a closed loop."""
        return float(self.arrivals_s[-1]) if len(self) else 0.0

    @property
    def mean_rate_req_s(self) -> float:
        """Sessions over the time until the last arrival; 0 where that is 0."""
        return len(self) / self.duration_s if self.duration_s else 0.0


def plan(spec: WorkloadSpec) -> Workload:
    """The workload of a spec: same spec, same bytes.

    Arrivals, choice of part, users and what happens in sessions have their own random streams
    of the one seed, per source of arrivals. Other lengths or readers leave the arrivals as they
    were, other arrivals leave the n-th session what it was, and a part with arrivals of its own,
    added at the end of the mix, leaves all others as they were.

    Raises:
        WorkloadError: a trace cannot be used, or the limits leave nobody.
    """
    every = tuple(sources(spec))
    if not any(len(source.times_s) for source in every):
        raise WorkloadError("limits.duration_s leaves nobody: the first arrival comes later")
    dropped = sum(source.replay.rows.dropped for source in every if source.replay is not None)
    if len(every) == 1:
        return Workload(
            spec=spec,
            arrivals_s=every[0].times_s,
            dropped=dropped,
            _sources=every,
            _source_of=None,
            _index_of=None,
        )
    times_s = np.concatenate([source.times_s for source in every])
    order = np.argsort(times_s, kind="stable")[: spec.limits.sessions]
    numbers = [np.arange(len(source.times_s)) for source in every]
    owners = [np.full(len(source.times_s), owner) for owner, source in enumerate(every)]
    return Workload(
        spec=spec,
        arrivals_s=times_s[order],
        dropped=dropped,
        _sources=every,
        _source_of=np.concatenate(owners)[order],
        _index_of=np.concatenate(numbers)[order],
    )
