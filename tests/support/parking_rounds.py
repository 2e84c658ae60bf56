"""A batch whose policy may park: what an engine with host memory does, in a few lines."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

from planning_rounds import MODEL, Rounds

from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.registry import make_policy
from readahead.core.planning.policy import (
    BatchPolicy,
    Choice,
    EngineLimits,
    EngineView,
    HostRoom,
    Plan,
)
from readahead.core.planning.sequence import Sequence

BLOCK_BYTES = 1_000_000
LIMITS = EngineLimits(
    kv_blocks=24, block_tokens=4, requests_max=16, batch_tokens_max=24, latency=MODEL
)


@dataclass(slots=True)
class Parker:
    """Stands between a batch and a policy that parks, and carries the moves out on the batch."""

    policy: BatchPolicy
    host_blocks: int
    copy_bytes_per_s: float
    batch: Batch = field(init=False)
    parked: dict[Sequence, bool] = field(default_factory=dict)
    coming: dict[Sequence, float] = field(default_factory=dict)
    """When the load of each that resumes is over."""
    moves: list[tuple[float, Sequence, str]] = field(default_factory=list)
    name: str = "parker"

    @property
    def host_used(self) -> int:
        size = self.batch.limits
        return sum(size.blocks_for(s.known) for s, is_copied in self.parked.items() if is_copied)

    def choose(self, view: EngineView, now: float) -> Choice:
        for one in [s for s, at in self.coming.items() if at <= now]:
            del self.coming[one]
            self.batch.pulling.remove(one)
            self.batch.running.append(one)
            one.computed = one.known - 1
        seen = replace(
            view,
            blocks_free=self.batch.blocks_free,
            pulling=len(self.batch.pulling),
            parked=list(self.parked),
            host=HostRoom(blocks_free=self.host_blocks - self.host_used, block_bytes=BLOCK_BYTES),
        )
        choice = self.policy.choose(seen, now)
        for one, is_copied in choice.park:
            self._park(one, is_copied=is_copied, now=now)
        for one in choice.resume:
            self._resume(one, now)
        return replace(choice, park=(), resume=())

    def _park(self, one: Sequence, *, is_copied: bool, now: float) -> None:
        self.batch.running.remove(one)
        self.batch.give(one.blocks)
        one.blocks = one.computed = 0
        one.is_copied, one.moved_at = is_copied, now
        self.parked[one] = is_copied
        self.moves.append((now, one, "park"))
        assert self.host_used <= self.host_blocks

    def _resume(self, one: Sequence, now: float) -> None:
        is_copied = self.parked.pop(one)
        one.moved_at = now
        self.moves.append((now, one, "resume"))
        if not is_copied:
            self.batch.waiting.insert(0, one)
            return
        blocks = self.batch.limits.blocks_for(one.known)
        assert self.batch.take(blocks), "resumed without blocks"
        one.blocks = blocks
        self.batch.pulling.append(one)
        self.coming[one] = now + blocks * BLOCK_BYTES / self.copy_bytes_per_s


class ParkingRounds(Rounds):
    """Plans, parks, carries out, and lets people read."""

    def __init__(
        self,
        *,
        knobs: dict[str, float],
        host_blocks: int = 100,
        copy_gb_s: float = 10.0,
        limits: EngineLimits = LIMITS,
    ) -> None:
        super().__init__("readahead", limits)
        policy = make_policy("readahead", {**knobs, "copy_gb_s": copy_gb_s})
        self.parker = Parker(policy, host_blocks, copy_gb_s * 1e9)
        self.parker.batch = self.batch
        self.batch.policy = self.parker
        self.seen: Counter[str] = Counter()
        self.ran_dry: list[Sequence] = []
        """Those who had nothing left to read while they were parked."""

    def round(self) -> Plan:
        """One iteration, and whoever has all tokens leaves."""
        plan = self.plan()
        for each in self.parker.parked:
            if each.slack_s(self.now) < 0 and each not in self.ran_dry:
                self.ran_dry.append(each)
        self.carry_out(plan)
        self.end_finished()
        return plan

    def everybody(self) -> list[Sequence]:
        """All that have not ended."""
        return [*self.alive(), *self.parker.parked]
