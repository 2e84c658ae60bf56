"""What a simulated engine tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from readahead.core.cluster import WorkerDescription, WorkerLoad
from readahead.core.messages import Event, StepObserved, TokensMade
from readahead.core.planning.batch import Batch
from readahead.core.planning.policy import Plan
from readahead.sim.stretch import Stretch

if TYPE_CHECKING:
    from readahead.sim.engine import Engine


class Watcher(Protocol):
    """Who is told what engines do."""

    def report(self, event: Event) -> None:
        """Something for the router."""
        ...

    def iterated(self, engine: Engine, plan: Plan, stretch: Stretch) -> None:
        """A stretch is over."""
        ...

    def turned(self, engine: Engine, *, is_computing: bool) -> None:
        """It begins to compute, or has no more to compute."""
        ...


class Reports:
    """One engine's steps, as its router hears of them."""

    def __init__(self, about: WorkerDescription, batch: Batch, watcher: Watcher) -> None:
        self._about = about
        self._batch = batch
        self._watcher = watcher
        self._said = (0, 0, batch.limits.kv_blocks)
        """Running, waiting and free blocks, as reported last."""

    def step(self, made: list[TokensMade]) -> None:
        """Reports a step, unless it made nothing and changed nothing: as between the chunks of a
        long prompt."""
        batch = self._batch
        running = len(batch.running)
        waiting = len(batch.waiting) + len(batch.pulling)
        load = (running, waiting, batch.blocks_free)
        if not made and load == self._said:
            return
        self._said = load
        about = self._about
        self._watcher.report(
            StepObserved(
                worker_id=about.worker_id,
                incarnation=about.incarnation,
                load=WorkerLoad(running=running, waiting=waiting, kv_blocks_free=load[2]),
                made=tuple(made),
            )
        )
