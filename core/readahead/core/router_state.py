"""The router's decisions: events in, commands out, nothing else.

Prompts wait here and not in the workers, so that their order stays open and a cancel is free.
The live router, the simulator and the replay of a recorded log all run this object.
"""

from __future__ import annotations

from typing import assert_never

from readahead.core.cluster import Role
from readahead.core.config import CoreConfig
from readahead.core.latency.iteration import LatencyModel
from readahead.core.ledger import Alarm, Ledger
from readahead.core.lifecycle import Lifecycle
from readahead.core.messages import (
    Command,
    Event,
    Explanation,
    LegFailed,
    LegFinished,
    LegJudged,
    LegRefused,
    MigrationCommitted,
    MigrationFailed,
    PrefillFinished,
    ReadingReported,
    RequestArrived,
    RequestCancelled,
    Statistics,
    StepObserved,
    TimerFired,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.migrations import Migrations
from readahead.core.news import News
from readahead.core.placement.dispatch import next_dispatch
from readahead.core.placement.roles import ElasticRoles
from readahead.core.request import RequestId, RequestView, Stage

LOOK_S = 0.1
"""How often it is asked anew where a prompt goes that waits for one certain worker."""


class RouterState:
    """All requests and workers of one router.

    `handle` is total: an event that no longer applies (another attempt, another incarnation, a
    request that has ended) changes nothing, but frees a late handover's KV.
    """

    def __init__(self, config: CoreConfig, *, latency: LatencyModel | None = None) -> None:
        """Starts without requests and workers.

        Args:
            config: its settings.
            latency: iteration times of the workers, for migration and elastic roles; None: as
                observed.
        """
        self._ledger = Ledger(config=config)
        self._lifecycle = Lifecycle(self._ledger)
        self._news = News(self._ledger, self._lifecycle)
        self._migrations = Migrations(self._ledger, self._news, latency=latency)
        is_elastic = config.placement.roles == "elastic"
        self._roles = ElasticRoles(self._ledger, latency=latency) if is_elastic else None

    def handle(self, event: Event, *, now: float) -> list[Command]:
        """Takes one event and returns what is to be done about it, in order.

        Args:
            event: what happened.
            now: seconds on the driver's monotonic clock; never less than in an earlier call.
        """
        ledger = self._ledger
        ledger.commands = []
        if self._roles is not None:
            self._roles.expect(event, now)
        self._take(event, now)
        while found := next_dispatch(ledger.lines, ledger.pools, now=now, roles=self._roles):
            self._lifecycle.submit(found, now)
            if self._roles is not None:
                self._roles.submitted(found.request, now)
        self._look_again(now)
        self._migrations.keep_looking(now)
        return ledger.commands

    def next_deadline(self) -> float | None:
        """When a TimerFired is due, seconds on the driver's clock; None for never."""
        return self._ledger.timers.next_at()

    def explain(self, request_id: RequestId) -> Explanation | None:
        """What was decided for a live or recently ended request."""
        live = self._ledger.live.get(request_id)
        return live.explanation() if live else self._ledger.endings.get(request_id)

    def view(self, request_id: RequestId) -> RequestView | None:
        """What a policy sees of a live request."""
        live = self._ledger.live.get(request_id)
        return live.view() if live else None

    def statistics(self) -> Statistics:
        """Counts for gauges."""
        by_stage = {stage: 0 for stage in Stage if not stage.is_final}
        for request in self._ledger.live.values():
            by_stage[request.stage] += 1
        workers = dict.fromkeys(Role, 0)
        for worker in self._ledger.pools:
            workers[worker.description.role] += not worker.is_draining
        return Statistics(by_stage=by_stage, workers=workers)

    def check(self) -> None:
        """Asserts the invariants of docs/reference/invariants.md; O(state)."""
        self._ledger.check()

    def _look_again(self, now: float) -> None:
        """A prompt that waits for a worker must not wait for news of it."""
        again = (Alarm.PROMPTS, "")
        timers = self._ledger.timers
        if self._roles is not None and self._ledger.lines.prompts and again not in timers:
            timers.set(again, now + LOOK_S)

    def _take(self, event: Event, now: float) -> None:  # noqa: PLR0912 - one branch per event
        match event:
            case StepObserved():
                self._news.observed(event, now)
            case RequestArrived():
                self._news.arrived(event, now)
            case RequestCancelled():
                self._news.cancelled(event, now)
            case PrefillFinished():
                self._news.prefilled(event, now)
            case LegJudged():
                self._news.judged(event, now)
            case LegFinished():
                self._news.finished(event, now)
            case LegRefused():
                self._news.refused(event, now)
            case LegFailed():
                self._news.failed(event, now)
            case WorkerJoined(description=description):
                self._news.joined(description, now)
            case WorkerDrained():
                self._news.drained(event)
            case WorkerLost():
                self._news.lost(event, now)
            case ReadingReported():
                self._news.read(event, now)
            case MigrationCommitted():
                self._migrations.committed(event, now)
            case MigrationFailed():
                self._migrations.failed(event, now)
            case TimerFired():
                self._fire(now)
            case _:
                assert_never(event)

    def _fire(self, now: float) -> None:
        for alarm, name in self._ledger.timers.pop_due(now):
            if alarm is Alarm.MOVES:
                self._migrations.look(now)
            else:
                self._news.came(alarm, name, now)
