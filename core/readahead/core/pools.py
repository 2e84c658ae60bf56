"""The router's mutable record of its workers and of what it has placed on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad, WorkerView
from readahead.core.live_request import LiveRequest, Migration
from readahead.core.request import Incarnation, Leg, RequestId, WorkerId

REST_S = 0.25
"""A worker that refused a leg is left alone for this long: some engine steps, so that what made
it refuse can change, and short beside a reader's patience."""

TOKEN_S_WEIGHT = 0.1
"""Of the latest step in the mean time of a token: some ten steps of memory."""


@dataclass(slots=True, kw_only=True, eq=False)
class LiveWorker:
    """One usable worker."""

    description: WorkerDescription
    load: WorkerLoad
    observed_at: float
    legs: dict[RequestId, int] = field(default_factory=dict)
    """Legs placed here, each with the most tokens it can occupy."""
    arrivals: dict[RequestId, int] = field(default_factory=dict)
    """Legs that migrate to here, alike; they have a seat, and another worker still owns them."""
    handovers: dict[RequestId, int] = field(default_factory=dict)
    """KV that waits here to be pulled, tokens."""
    departed: dict[RequestId, int] = field(default_factory=dict)
    """Legs that migrated away and still run elsewhere. Placement goes on counting them: one from
    whom readers had to be moved would else look free, and be given whoever comes next."""
    kept: set[RequestId] = field(default_factory=set)
    """Legs that a prefill worker has not handed over, but goes on with; they are no prompts."""
    committed_tokens: int = 0
    """Most tokens that its legs, arrivals, handovers and departed ones can come to occupy."""
    token_s: float = 0.0
    """Time between two tokens of a request here, a moving mean; 0: not known yet."""
    made_tokens: bool = False
    """In the last step, for this router."""
    is_draining: bool = False
    rests_until: float = 0.0
    _view: WorkerView | None = None
    """What a policy saw last; None once something of it has changed."""

    @property
    def worker_id(self) -> WorkerId:
        return self.description.worker_id

    @property
    def seats(self) -> int:
        """Legs that it has, or keeps room for."""
        return len(self.legs) + len(self.arrivals)

    def keep(self, held: dict[RequestId, int], request_id: RequestId, tokens: int) -> None:
        """Adds to its legs, arrivals or handovers."""
        held[request_id] = tokens
        self.committed_tokens += tokens
        self._view = None

    def drop(self, held: dict[RequestId, int], request_id: RequestId) -> int:
        """Takes out of its legs, arrivals or handovers. Returns the tokens."""
        tokens = held.pop(request_id)
        self.committed_tokens -= tokens
        self._view = None
        return tokens

    def observe(self, load: WorkerLoad, tokens: int, *, now: float) -> None:
        """Takes note of an engine step.

        Args:
            load: after it.
            tokens: most tokens that it made for one request; 0 if none that is known here.
            now: seconds on the driver's clock.
        """
        if tokens and self.made_tokens:  # nothing is known of the time since an idle step
            token_s = (now - self.observed_at) / tokens
            weight = TOKEN_S_WEIGHT if self.token_s else 1.0
            self.token_s += weight * (token_s - self.token_s)
        self.load, self.observed_at, self.made_tokens = load, now, tokens > 0
        self._view = None

    def has_room(self, tokens: int, *, now: float) -> bool:
        """It may be given one more leg of so many tokens.

        A prefill worker holds no more prompts than its credits and its KV memory allow, so that
        the rest wait in the router, where their order can still change. A decode worker's own
        engine deals with memory, by preemption; the router minds the batch size.
        """
        if self.is_draining or now < self.rests_until:
            return False
        about = self.description
        if about.role is Role.DECODE:
            return self.seats < about.requests_max
        prompts = len(self.legs) - len(self.kept)
        fits = self._promised_tokens() + tokens <= about.kv_blocks * about.block_tokens
        return prompts < about.prefill_credits and (fits or not self.committed_tokens)

    def can_keep(self, prompt_tokens: int, *, now: float) -> bool:
        """It is a prefill worker that may be given one more leg for good."""
        has_seat = self.seats < self.description.requests_max
        return has_seat and self.has_room(prompt_tokens, now=now)

    def _promised_tokens(self) -> int:
        """KV that a prefill worker's prompts and handovers need, or that is used if that is more.

        Answers that it keeps count by what they use: they end long before they are as long as they
        may be, and its engine deals with those that do not.
        """
        if not self.kept:
            return self.committed_tokens
        about = self.description
        used = (about.kv_blocks - self.load.kv_blocks_free) * about.block_tokens
        return max(self.committed_tokens - sum(self.legs[each] for each in self.kept), used)

    def view(self) -> WorkerView:
        """What a policy sees."""
        seen = self._view
        if seen is not None and seen.is_draining == self.is_draining:
            return seen
        self._view = WorkerView(
            description=self.description,
            load=self.load,
            observed_at=self.observed_at,
            legs=self.seats,
            committed_tokens=self.committed_tokens,
            is_draining=self.is_draining,
            token_s=self.token_s,
        )
        return self._view


class Pools:
    """All usable workers, by id."""

    def __init__(self) -> None:
        self._workers: dict[WorkerId, LiveWorker] = {}

    def __iter__(self) -> Iterator[LiveWorker]:
        return iter(self._workers.values())

    def add(self, description: WorkerDescription, *, now: float) -> None:
        """Puts in a worker that must not be there yet."""
        assert description.worker_id not in self._workers, description.worker_id
        idle = WorkerLoad(running=0, waiting=0, kv_blocks_free=description.kv_blocks)
        self._workers[description.worker_id] = LiveWorker(
            description=description, load=idle, observed_at=now
        )

    def remove(self, worker_id: WorkerId) -> LiveWorker:
        """Takes out a worker that must be there."""
        return self._workers.pop(worker_id)

    def get(
        self, worker_id: WorkerId | None, incarnation: Incarnation | None = None
    ) -> LiveWorker | None:
        """The worker, unless it is gone or is another incarnation than the one meant."""
        worker = self._workers.get(worker_id) if worker_id is not None else None
        if worker is None or incarnation in (None, worker.description.incarnation):
            return worker
        return None

    def seat(self, request: LiveRequest, leg: Leg, worker_id: WorkerId, *, tokens: int) -> None:
        """Places a leg of a request that has none placed."""
        assert request.worker_id is None, request
        worker = self._workers[worker_id]
        worker.keep(worker.legs, request.request_id, tokens)
        request.leg, request.worker_id = leg, worker_id

    def unseat(self, request: LiveRequest) -> WorkerId | None:
        """Ends the placement, if there is one. Returns who had it, if still usable."""
        self._forget_departure(request)
        worker = self.get(request.worker_id)
        request.leg = request.worker_id = None
        if worker is None:
            return None
        worker.drop(worker.legs, request.request_id)
        worker.kept.discard(request.request_id)
        return worker.worker_id

    def keep_on(self, request: LiveRequest) -> None:
        """Its prompt is computed; a prefill worker that goes on with it counts no credit for it."""
        worker = self.get(request.worker_id)
        if worker is not None and worker.description.role is Role.PREFILL:
            worker.kept.add(request.request_id)

    def start_move(self, request: LiveRequest, target_id: WorkerId) -> Migration:
        """Keeps a seat for a running leg on another worker. The source owns the leg."""
        assert request.is_movable, request
        assert request.worker_id is not None, request
        source, target = self._workers[request.worker_id], self._workers[target_id]
        request.moves += 1
        migration = Migration(move=request.moves, source=source.worker_id, target=target_id)
        target.keep(target.arrivals, request.request_id, source.legs[request.request_id])
        request.migration = migration
        return migration

    def commit_move(self, request: LiveRequest) -> None:
        """Makes the target the owner of the leg."""
        migration = self.cancel_move(request)
        assert migration is not None, request
        source, target = self._workers[migration.source], self._workers[migration.target]
        self._forget_departure(request)
        tokens = source.drop(source.legs, request.request_id)
        source.keep(source.departed, request.request_id, tokens)
        target.keep(target.legs, request.request_id, tokens)
        request.worker_id, request.departed_from = migration.target, migration.source

    def cancel_move(self, request: LiveRequest) -> Migration | None:
        """Gives the target's seat up. Returns what was under way, if anything was."""
        migration = request.migration
        if migration is None:
            return None
        request.migration = None
        if target := self.get(migration.target):
            target.drop(target.arrivals, request.request_id)
        return migration

    def _forget_departure(self, request: LiveRequest) -> None:
        worker = self.get(request.departed_from)
        request.departed_from = None
        if worker is not None and request.request_id in worker.departed:  # it may be another start
            worker.drop(worker.departed, request.request_id)

    def hold(self, request: LiveRequest, source: LiveWorker) -> None:
        """Remembers that the request's KV waits on `source`."""
        source.keep(source.handovers, request.request_id, request.prompt_tokens)
        request.source_id = source.worker_id

    def let_go(self, request: LiveRequest) -> WorkerId | None:
        """Forgets the handover, if there is one. Returns who holds it, if still usable."""
        source = self.get(request.source_id)
        request.source_id = None
        if source is None:
            return None
        source.drop(source.handovers, request.request_id)
        return source.worker_id

    def has(self, role: Role) -> bool:
        """Some worker of this role takes legs, now or once it has room."""
        return any(w.description.role is role and not w.is_draining for w in self)

    def with_room(self, role: Role, tokens: int, *, now: float) -> list[WorkerView]:
        """Workers that may be given one more leg, by id so that ties do not depend on history."""
        found = [
            w.view() for w in self if w.description.role is role and w.has_room(tokens, now=now)
        ]
        return sorted(found, key=lambda view: view.description.worker_id)

    def check(self, live: Mapping[RequestId, LiveRequest]) -> None:
        """Asserts that workers and live requests agree on who has what."""
        legs = {(r.request_id, r.worker_id) for r in live.values() if self.get(r.worker_id)}
        assert legs == {(each, w.worker_id) for w in self for each in w.legs}
        moves = [(r.request_id, r.migration) for r in live.values() if r.migration]
        assert {(each, move.target) for each, move in moves} == {
            (each, w.worker_id) for w in self for each in w.arrivals
        }
        held = {(r.request_id, r.source_id) for r in live.values() if self.get(r.source_id)}
        assert held == {(each, w.worker_id) for w in self for each in w.handovers}
        departed = {(each, w.worker_id) for w in self for each in w.departed}
        assert departed <= {(r.request_id, r.departed_from) for r in live.values()}
        for worker in self:
            held_here = (worker.legs, worker.arrivals, worker.handovers, worker.departed)
            assert worker.kept <= worker.legs.keys(), worker
            assert worker.committed_tokens == sum(sum(each.values()) for each in held_here)
        for request in live.values():
            assert request.worker_id is None or self.get(request.worker_id), request
            assert request.source_id is None or self.get(request.source_id), request
