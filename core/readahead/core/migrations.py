"""Running requests that go to another decode worker: begun, committed, failed.

The stage stays DECODING and the source owns the leg until the commit; the target keeps a seat.
"""

from __future__ import annotations

from readahead.core.cluster import Role
from readahead.core.errors import Reason
from readahead.core.latency.iteration import LatencyModel
from readahead.core.ledger import Alarm, Ledger
from readahead.core.live_request import LiveRequest
from readahead.core.messages import MigrateLeg, MigrationCommitted, MigrationFailed
from readahead.core.news import News
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move
from readahead.core.pools import LiveWorker

_LOOK = (Alarm.MOVES, "")


class Migrations:
    """Looks at intervals who should move, and follows those who do."""

    def __init__(self, ledger: Ledger, news: News, *, latency: LatencyModel | None) -> None:
        self._ledger, self._news, self._latency = ledger, news, latency
        self._policy = MigrationPolicy.of(ledger.config.migration)

    def keep_looking(self, now: float) -> None:
        """Sets the timer of the next look, while a decode worker has anything."""
        if self._policy is None or _LOOK in self._ledger.timers:
            return
        if any(worker.legs for worker in self._ledger.pools if _decodes(worker)):
            self._ledger.timers.set(_LOOK, now + self._ledger.config.migration.interval_s)

    def look(self, now: float) -> None:
        """Begins the moves that the policy wants. O(live requests)."""
        decoders = self._decoders(now)
        if self._policy is None or len(decoders) < 2:
            return
        for move in self._policy.choose(decoders, now=now):
            self._begin(move, now)

    def committed(self, event: MigrationCommitted, now: float) -> None:
        """The target owns the leg from now on."""
        if request := self._moving(event):
            self._ledger.pools.commit_move(request)
            request.moved_at = now
            request.note("migrate", "it has moved", now=now, worker_id=event.target)

    def failed(self, event: MigrationFailed, now: float) -> None:
        """The source goes on alone."""
        request = self._moving(event)
        if request is None:
            return
        self._ledger.pools.cancel_move(request)
        request.moved_at = now
        why = f"it stays, since the move to {event.target} failed: {event.message}"
        request.note("migrate", why, now=now, worker_id=event.source)
        target = self._ledger.pools.get(event.target)
        if target is not None and event.reason is Reason.OVERLOADED:
            self._news.rest(target, now)

    def _begin(self, move: Move, now: float) -> None:
        request = self._ledger.live[move.request_id]
        migration = self._ledger.pools.start_move(request, move.target)
        request.note("migrate", move.reason, now=now, worker_id=move.target)
        self._ledger.commands.append(
            MigrateLeg(
                request_id=request.request_id,
                attempt=request.attempt,
                move=migration.move,
                source=migration.source,
                target=migration.target,
            )
        )

    def _moving(self, event: MigrationCommitted | MigrationFailed) -> LiveRequest | None:
        """The request, if it is on this very move."""
        request = self._ledger.live.get(event.request_id)
        if request is None or request.attempt != event.attempt or request.migration is None:
            return None
        under_way = request.migration
        told = (event.move, event.source, event.target)
        return request if told == (under_way.move, under_way.source, under_way.target) else None

    def _decoders(self, now: float) -> list[Decoder]:
        """The decode workers, by id so that ties do not depend on history."""
        workers = sorted(filter(_decodes, self._ledger.pools), key=lambda each: each.worker_id)
        return [self._decoder(worker, now) for worker in workers]

    def _decoder(self, worker: LiveWorker, now: float) -> Decoder:
        live = self._ledger.live
        return Decoder(
            worker.view(),
            legs=[live[request_id].view() for request_id in worker.legs],
            arrivals=[live[request_id].view() for request_id in worker.arrivals],
            is_resting=now < worker.rests_until,
            latency=self._latency,
        )


def _decodes(worker: LiveWorker) -> bool:
    return worker.description.role is Role.DECODE
