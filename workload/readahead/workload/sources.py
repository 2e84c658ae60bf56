"""Where sessions come from: one process of arrivals and the parts that share it."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from readahead.workload.arrivals import ClosedLoop, first_times_s
from readahead.workload.arrivals_kinds import AnyArrivals
from readahead.workload.arrivals_trace import Replay, TraceArrivals, replay
from readahead.workload.columns import Floats
from readahead.workload.scenarios import Scenario
from readahead.workload.scenarios_registry import make_scenario
from readahead.workload.session import Session
from readahead.workload.spec import Limits, Part, WorkloadSpec
from readahead.workload.spec_problems import WorkloadError
from readahead.workload.streams import Stream
from readahead.workload.trace_sessions import TRACE, TraceScenario, make_trace_scenario
from readahead.workload.traces.formats import read_trace

SESSIONS_MAX = 50_000_000
"""More would not fit into a few gigabytes of arrival times; a rate or a time is mistaken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """A part with its scenario made."""

    part: Part
    scenario: Scenario | TraceScenario


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """One process of arrivals. Its n-th session follows from the seed, the source and n alone."""

    key: str
    """`s` for the common arrivals, `p0-` and so on for those of a part."""
    seed: int
    times_s: Floats
    uses: tuple[_Use, ...]
    replay: Replay | None

    def maker(self) -> SessionMaker:
        """Makes this source's sessions; has streams of its own."""
        return SessionMaker(self)


class SessionMaker:
    """Makes the sessions of one source, in any order."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._kinds, self._users, self._sessions = (
            Stream(source.seed, f"{source.key}/{purpose}")
            for purpose in ("parts", "users", "sessions")
        )
        shares = itertools.accumulate(use.part.share for use in source.uses)
        self._shares = list(shares)

    def make(self, index: int) -> Session:
        """The session of that index."""
        use = self._use(index)
        part, rows = use.part, self._source.replay
        session_id = f"{self._source.key}{index:07d}"
        arrival_s = self._source.times_s.item(index)
        user = self._user(part, index, session_id)
        rng = self._sessions.restart(index)
        if rows is not None and part.needs_trace:
            row = rows.first_row + index
            if isinstance(use.scenario, TraceScenario):
                return use.scenario.make_session(
                    rows.rows,
                    row,
                    session_id=session_id,
                    arrival_s=arrival_s,
                    tenant=part.tenant,
                    user=user,
                    rng=rng,
                )
            lengths = rows.rows.prompt_tokens.item(row), rows.rows.output_tokens.item(row)
        else:
            lengths = None
        assert not isinstance(use.scenario, TraceScenario)  # WorkloadSpec checks it
        return use.scenario.make_session(
            session_id=session_id,
            arrival_s=arrival_s,
            tenant=part.tenant,
            user=user,
            rng=rng,
            lengths=lengths,
        )

    def _use(self, index: int) -> _Use:
        uses = self._source.uses
        if len(uses) == 1:
            return uses[0]
        level = self._kinds.restart(index).random() * self._shares[-1]
        return uses[min(bisect.bisect_right(self._shares, level), len(uses) - 1)]

    def _user(self, part: Part, index: int, session_id: str) -> str:
        if part.users is not None:
            return f"{part.tenant}/{self._users.restart(index).randrange(part.users)}"
        rows = self._source.replay
        if rows is not None and rows.rows.chats is not None and part.needs_trace:
            return f"{part.tenant}/chat-{rows.rows.chats[rows.first_row + index]}"
        return f"{part.tenant}/{session_id}"


def sources(spec: WorkloadSpec) -> Iterator[Source]:
    """All sources of a workload, that of the common arrivals first.

    Raises:
        WorkloadError: a trace cannot be used, or arrivals never end.
    """
    common = tuple(_use(part) for part in spec.mix if part.arrivals is None)
    if spec.arrivals is not None:
        yield _source("s", spec, spec.arrivals, common)
    for index, part in enumerate(spec.mix):
        if part.arrivals is not None:
            yield _source(f"p{index}-", spec, part.arrivals, (_use(part),))


def _use(part: Part) -> _Use:
    if part.scenario == TRACE:
        return _Use(part=part, scenario=make_trace_scenario(part.parameters))
    return _Use(part=part, scenario=make_scenario(part.scenario, part.parameters))


def _source(key: str, spec: WorkloadSpec, arrivals: AnyArrivals, uses: tuple[_Use, ...]) -> Source:
    # The common stream's name is that of a plain load run, whose arrivals it repeats.
    purpose = "arrivals" if key == "s" else f"{key}arrivals"
    rng = random.Random(f"{spec.seed}/{purpose}")
    rows: Replay | None = None
    match arrivals:
        case ClosedLoop():
            times_s = np.zeros(spec.limits.sessions or 0)
        case TraceArrivals():
            try:
                rows = replay(arrivals, read_trace(arrivals.path, arrivals.format), rng)
            except ValueError as error:
                raise WorkloadError(str(error)) from error
            times_s = _limited(rows.times_s, spec.limits)
        case _:
            limits = spec.limits
            drawn = first_times_s(
                arrivals.times_s(rng), sessions=limits.sessions, duration_s=limits.duration_s
            )
            times_s = np.fromiter(_counted(drawn), np.float64)
    return Source(key=key, seed=spec.seed, times_s=times_s, uses=uses, replay=rows)


def _limited(times_s: Floats, limits: Limits) -> Floats:
    if limits.duration_s is not None:
        times_s = times_s[: int(np.searchsorted(times_s, limits.duration_s, side="right"))]
    return times_s[: limits.sessions]


def _counted(times_s: Iterator[float]) -> Iterator[float]:
    for count, at_s in enumerate(times_s):
        if count >= SESSIONS_MAX:
            raise WorkloadError(f"arrivals: more than {SESSIONS_MAX:,} sessions within the limits")
        yield at_s
