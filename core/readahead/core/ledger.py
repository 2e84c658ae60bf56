"""What the parts of the router's core share: who is where, who waits, and what is to be done."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from readahead.core.config import CoreConfig
from readahead.core.endings import Endings
from readahead.core.lines import Lines
from readahead.core.live_request import LiveRequest
from readahead.core.messages import (
    CancelLeg,
    Command,
    PrefillFinished,
    ReleaseHandover,
    RenewHandover,
)
from readahead.core.pools import Pools
from readahead.core.request import RequestId, Stage, WorkerId
from readahead.core.timers import Timers


class Alarm(StrEnum):
    """What a timer is for."""

    WAIT = "wait"
    """A request has waited for a worker for too long."""
    DEADLINE = "deadline"
    """Its caller gives up."""
    RENEW = "renew"
    """The lease of its handover is to be renewed."""
    REST = "rest"
    """A worker that refused may be asked again."""
    PROMPTS = "prompts"
    """Prompts that wait for a worker may be better off with another by now."""
    MOVES = "moves"
    """Who might be migrated is to be looked at."""


@dataclass(slots=True, kw_only=True, eq=False)
class Ledger:
    """The state of one router's core. Its parts change it; `RouterState` alone hands it out."""

    config: CoreConfig
    pools: Pools = field(default_factory=Pools)
    live: dict[RequestId, LiveRequest] = field(default_factory=dict)
    lines: Lines = field(default_factory=Lines)
    endings: Endings = field(default_factory=Endings)
    timers: Timers[tuple[Alarm, str]] = field(default_factory=Timers)
    commands: list[Command] = field(default_factory=list)
    """What the event in hand asks for."""

    def current(
        self, request_id: RequestId, attempt: int, worker_id: WorkerId
    ) -> LiveRequest | None:
        """The request, if this worker has a leg of this attempt of it."""
        request = self.live.get(request_id)
        if request is None or (request.attempt, request.worker_id) != (attempt, worker_id):
            return None
        return request

    def tell(
        self,
        command: type[CancelLeg | RenewHandover | ReleaseHandover],
        about: LiveRequest | PrefillFinished,
        worker_id: WorkerId,
    ) -> None:
        """Commands something of one worker about one request."""
        self.commands.append(
            command(request_id=about.request_id, attempt=about.attempt, worker_id=worker_id)
        )

    def check(self) -> None:
        """Asserts the invariants of docs/reference/invariants.md; O(state)."""
        waiting = 0
        for request in self.live.values():
            assert not request.stage.is_final, request
            has_leg = request.stage in (Stage.PREFILLING, Stage.DECODING)
            assert has_leg == (request.worker_id is not None) == (request.leg is not None), request
            assert has_leg or (Alarm.WAIT, request.request_id) in self.timers, request
            waiting += not has_leg
            if move := request.migration:
                assert request.stage is Stage.DECODING, request
                assert request.tokens_delivered, request
                assert move.source == request.worker_id != move.target, request
        assert waiting == len(self.lines)
        self.pools.check(self.live)
