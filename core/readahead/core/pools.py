"""The router's mutable record of its workers and of what it has placed on them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad, WorkerView
from readahead.core.live_request import LiveRequest
from readahead.core.request import Incarnation, Leg, RequestId, WorkerId

REST_S = 0.25
"""A worker that refused a leg is left alone for this long: some engine steps, so that what made
it refuse can change, and short beside a reader's patience."""


@dataclass(slots=True, kw_only=True, eq=False)
class LiveWorker:
    """One usable worker."""

    description: WorkerDescription
    load: WorkerLoad
    observed_at: float
    legs: dict[RequestId, int] = field(default_factory=dict)
    """Legs placed here, each with the most tokens it can occupy."""
    handovers: dict[RequestId, int] = field(default_factory=dict)
    """KV that waits here to be pulled, tokens."""
    is_draining: bool = False
    rests_until: float = 0.0

    @property
    def worker_id(self) -> WorkerId:
        return self.description.worker_id

    @property
    def committed_tokens(self) -> int:
        """Most tokens that its legs and handovers can come to occupy."""
        return sum(self.legs.values()) + sum(self.handovers.values())

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
            return len(self.legs) < about.requests_max
        fits = self.committed_tokens + tokens <= about.kv_blocks * about.block_tokens
        return len(self.legs) < about.prefill_credits and (fits or not self.committed_tokens)

    def view(self) -> WorkerView:
        """What a policy sees."""
        return WorkerView(
            description=self.description,
            load=self.load,
            observed_at=self.observed_at,
            legs=len(self.legs),
            committed_tokens=self.committed_tokens,
            is_draining=self.is_draining,
        )


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
        self._workers[worker_id].legs[request.request_id] = tokens
        request.leg, request.worker_id = leg, worker_id

    def unseat(self, request: LiveRequest) -> WorkerId | None:
        """Ends the placement, if there is one. Returns who had it, if still usable."""
        worker = self.get(request.worker_id)
        request.leg = request.worker_id = None
        if worker is None:
            return None
        del worker.legs[request.request_id]
        return worker.worker_id

    def hold(self, request: LiveRequest, source: LiveWorker) -> None:
        """Remembers that the request's KV waits on `source`."""
        source.handovers[request.request_id] = request.prompt_tokens
        request.source_id = source.worker_id

    def let_go(self, request: LiveRequest) -> WorkerId | None:
        """Forgets the handover, if there is one. Returns who holds it, if still usable."""
        source = self.get(request.source_id)
        request.source_id = None
        if source is None:
            return None
        del source.handovers[request.request_id]
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
        held = {(r.request_id, r.source_id) for r in live.values() if self.get(r.source_id)}
        assert held == {(each, w.worker_id) for w in self for each in w.handovers}
        for request in live.values():
            assert request.worker_id is None or self.get(request.worker_id), request
            assert request.source_id is None or self.get(request.source_id), request
