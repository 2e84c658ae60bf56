"""Simulates a run from its beginning to its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from readahead.core.cluster import Role
from readahead.core.planning.policy import Plan
from readahead.core.reading.curves import Slo
from readahead.core.reading.score import Ruler, Score
from readahead.core.request import WorkerId
from readahead.ruler.run import Run
from readahead.ruler.scoring import score_run
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.cluster import zero_load_ttft_s as zero_load_ttft_s
from readahead.sim.engine import Engine
from readahead.sim.faults import Fault
from readahead.sim.reduced import Reduced
from readahead.sim.results import Gathered
from readahead.sim.stretch import Stretch
from readahead.sim.trace_export import ChromeTrace
from readahead.sim.world import Router, World
from readahead.workload.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run is watched."""

    ruler: Ruler = field(default_factory=Ruler)
    seed: int = 0
    """Of the engines' noise; workload and faults have their own."""
    faults: Sequence[Fault] = ()
    keeps_tokens: bool = True
    """False: each request is reduced to what it adds to the score; no `run` then."""
    record: Callable[[EndedRequest], None] | None = None
    """Is handed each request as it ends."""
    trace: ChromeTrace | None = None
    until_s: float = math.inf
    """Virtual time at which the run is broken off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSummary:
    """What one worker did in a run, all its incarnations together."""

    worker_id: WorkerId
    role: Role
    utilisation: float
    """Share of the run in which an iteration was under way."""
    iterations: int
    stretches: int
    tokens_made: int
    tokens_computed: int
    preemptions: int
    legs: int
    pulls: int
    pulls_failed: int
    prefix_tokens_hit: int
    tokens_drafted: int
    tokens_accepted: int
    """Of those drafted."""
    parks: int
    copied_bytes: float
    """To host memory and back."""
    incarnations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRun:
    """A run that never took place."""

    score: Score
    run: Run | None
    """All requests with all token times, where they were kept."""
    workers: tuple[WorkerSummary, ...]
    duration_s: float
    """Virtual time from 0 to the last event."""
    moved_bytes: float
    """Over the link."""
    transfers: int
    actions: int
    """Of the event kernel."""
    core_events: int
    """That the router's core took."""
    unfinished: int
    """Requests that were under way when the run was broken off."""


def simulate(
    spec: ClusterSpec,
    sessions: Iterable[Session],
    options: RunOptions | None = None,
    *,
    router: Router | None = None,
) -> SimulatedRun:
    """Runs all sessions, which come in order of arrival, and scores what their users got.

    The same arguments give the same result, to the byte.
    """
    options = options or RunOptions()
    sink = _RunSink(spec, options)
    world = World(
        spec, sessions, sink=sink, seed=options.seed, faults=options.faults, router=router
    )
    if options.trace is not None:
        world.network.watch = options.trace.moved
    world.run(options.until_s)
    run = None if sink.gathered is None else sink.gathered.run()
    if run is not None:
        score = score_run(run, options.ruler).score
    else:
        assert sink.reduced is not None
        score = sink.reduced.score()
    return SimulatedRun(
        score=score,
        run=run,
        workers=worker_summaries(world),
        duration_s=world.kernel.now_s,
        moved_bytes=world.network.moved_bytes,
        transfers=world.network.transfers,
        actions=world.kernel.done,
        core_events=world.events,
        unfinished=len(world.asked),
    )


class _RunSink:
    def __init__(self, spec: ClusterSpec, options: RunOptions) -> None:
        self._spec = spec
        self._record, self._trace = options.record, options.trace
        self.gathered = Gathered() if options.keeps_tokens else None
        self.reduced = None if options.keeps_tokens else Reduced(options.ruler)

    def ended(self, request: EndedRequest) -> None:
        slo = promise(self._spec, request)
        if self.gathered is not None:
            self.gathered.add(request, slo)
        if self.reduced is not None:
            self.reduced.add(request, slo)
        if self._record is not None:
            self._record(request)
        if self._trace is not None:
            self._trace.ended(request)

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        if self._trace is not None:
            self._trace.iterated(engine, plan, stretch)


def promise(spec: ClusterSpec, request: EndedRequest) -> Slo | None:
    """The due times that its scenario promised, from the time of its prompt on an idle cluster."""
    if request.slo is None:
        return None
    return request.slo.curve(
        zero_load_ttft_s=zero_load_ttft_s(spec, request.prompt_tokens),
        thinking_tokens=request.thinking_tokens,
    )


def worker_summaries(world: World) -> tuple[WorkerSummary, ...]:
    """What each worker did."""
    whole_s = world.kernel.now_s
    summaries = []
    for worker_id, role in world.roles.items():
        lives = [engine for engine in world.lost if engine.description.worker_id == worker_id]
        if worker_id in world.engines:
            lives.append(world.engines[worker_id])
        counts = [engine.counts for engine in lives]
        busy_s = math.fsum(one.busy_s for one in counts)
        summaries.append(
            WorkerSummary(
                worker_id=worker_id,
                role=role,
                utilisation=busy_s / whole_s if whole_s else 0.0,
                iterations=sum(one.iterations for one in counts),
                stretches=sum(one.stretches for one in counts),
                tokens_made=sum(one.tokens_made for one in counts),
                tokens_computed=sum(one.tokens_computed for one in counts),
                preemptions=sum(engine.batch.preemptions for engine in lives),
                legs=sum(one.legs for one in counts),
                pulls=sum(one.pulls for one in counts),
                pulls_failed=sum(one.pulls_failed for one in counts),
                prefix_tokens_hit=sum(one.prefix_tokens_hit for one in counts),
                tokens_drafted=sum(one.tokens_drafted for one in counts),
                tokens_accepted=sum(one.tokens_accepted for one in counts),
                parks=sum(one.batch.host.parks for one in lives if one.batch.host is not None),
                copied_bytes=math.fsum(one.copies.bytes for one in lives if one.copies is not None),
                incarnations=len(lives),
            )
        )
    return tuple(summaries)
