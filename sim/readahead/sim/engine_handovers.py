"""Prompts' KV that waits on one worker, and the KV that it pulls from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from readahead.core.cluster import WorkerDescription
from readahead.sim.engine_leg import EngineLeg, Key
from readahead.sim.kernel import Appointment, Kernel
from readahead.sim.links import Network

Landed = Callable[[EngineLeg, bool], None]


@dataclass(slots=True, eq=False, kw_only=True)
class _Held:
    blocks: int
    expires_at_s: float
    expiry: Appointment
    pulls: dict[EngineLeg, Landed] = field(default_factory=dict)
    """Who pulls it now, and who is then told."""


class Handovers:
    """Holds blocks under leases that the router renews, and gives them back."""

    def __init__(
        self,
        about: WorkerDescription,
        *,
        kernel: Kernel,
        network: Network,
        give: Callable[[int], None],
    ) -> None:
        self._worker = about.worker_id
        self._lease_s = about.handover_lease_s
        self._kernel = kernel
        self._network = network
        self._give = give
        self._held: dict[Key, _Held] = {}
        self.blocks = 0
        """Blocks that are held."""
        self.expired = 0
        """Leases that ran out."""

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, key: Key, *, blocks: int) -> None:
        """Holds the KV of a prompt that has just been computed."""
        assert key not in self._held, key
        expires_at_s = self._kernel.now_s + self._lease_s
        expiry = self._kernel.at(expires_at_s, partial(self._expire, key))
        self._held[key] = _Held(blocks=blocks, expires_at_s=expires_at_s, expiry=expiry)
        self.blocks += blocks

    def renew(self, key: Key) -> None:
        """Extends a lease, if it has not run out."""
        if held := self._held.get(key):
            held.expires_at_s = self._kernel.now_s + self._lease_s

    def release(self, key: Key) -> None:
        """Frees the KV, if it is here. Who pulls it gets nothing."""
        held = self._held.pop(key, None)
        if held is None:
            return
        self._kernel.cancel(held.expiry)
        self.blocks -= held.blocks
        for leg, landed in held.pulls.items():
            if leg.transfer is not None:
                self._network.stop(leg.transfer)
                leg.transfer = None
            landed(leg, False)
        self._give(held.blocks)

    def release_all(self) -> None:
        """Frees everything: the worker is gone."""
        for key in list(self._held):
            self.release(key)

    def pull(self, leg: EngineLeg, *, landed: Landed) -> None:
        """Has the KV of a leg that decodes here sent from its source."""
        source = leg.source
        if source is None or not source.send(leg, target=self._worker, landed=landed):
            self._kernel.at(self._kernel.now_s, partial(_come_empty, leg, landed))

    def send(self, leg: EngineLeg, *, target: str, landed: Landed) -> bool:
        """Sends a prompt's KV; False where it is not here."""
        held = self._held.get(leg.key)
        if held is None:
            return False
        held.pulls[leg] = landed
        size_bytes = float(leg.sequence.prompt_tokens * self._network.kv_token_bytes)
        leg.transfer = self._network.send(
            source=self._worker,
            target=target,
            size_bytes=size_bytes,
            landed=partial(self._arrived, leg),
        )
        return True

    def stop_pull(self, leg: EngineLeg) -> None:
        """A leg that waits for its KV is gone."""
        if leg.transfer is None:
            return
        self._network.stop(leg.transfer)
        leg.transfer = None
        if leg.source is not None and (held := leg.source._held.get(leg.key)):
            held.pulls.pop(leg, None)

    def _arrived(self, leg: EngineLeg) -> None:
        leg.transfer = None
        held = self._held[leg.key]
        landed = held.pulls.pop(leg)
        self.release(leg.key)
        landed(leg, True)

    def _expire(self, key: Key) -> None:
        held = self._held[key]
        if held.expires_at_s > self._kernel.now_s:
            held.expiry = self._kernel.at(held.expires_at_s, partial(self._expire, key))
            return
        self.expired += 1
        self.release(key)


def _come_empty(leg: EngineLeg, landed: Landed) -> None:
    if not leg.sequence.is_ended:
        landed(leg, False)
