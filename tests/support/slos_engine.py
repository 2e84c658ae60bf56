"""An engine under `slos-serve`, asked by people who were promised due times."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from slos_instances import LINEAR

from readahead.core.latency.iteration import iteration_s
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.planning.policy import EngineLimits, Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.promise import Verdict
from readahead.core.request import RequestId

TOLERANCE = 0.05
"""By which the source's own check lets due times be exceeded."""
ROUNDING_S = 1e-6
LIMITS = EngineLimits(
    kv_blocks=500, block_tokens=16, requests_max=16, batch_tokens_max=4096, latency=LINEAR
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who comes."""

    rate_req_s: float = 9.0
    prompt_tokens_max: int = 1500
    output_tokens_max: int = 60
    paces_tok_s: tuple[float, ...] = (20.0, 10.0, 5.0)
    ttft_s: tuple[float, float] = (0.15, 1.5)


@dataclass(slots=True)
class SlosEngine:
    """Batches that take the time that the policy believes, and what of the promises was kept."""

    policy: SlosServe
    draw: random.Random
    asking: Asking = field(default_factory=Asking)
    limits: EngineLimits = LIMITS
    now: float = 0.0
    arrived: int = 0
    rounds: int = 0
    batch: Batch = field(init=False)
    accepted: set[Sequence] = field(default_factory=set)
    """All who ever were."""
    dropped: int = 0
    """How often one of them lost his memory."""
    late: set[Sequence] = field(default_factory=set)
    """Whose promise was broken."""
    ended: int = 0
    _holding: set[Sequence] = field(default_factory=set)
    _lengths: dict[Sequence, int] = field(default_factory=dict)
    _base: dict[Sequence, float] = field(default_factory=dict)
    _next_at: float = 0.0

    def __post_init__(self) -> None:
        self.batch = Batch(limits=self.limits, policy=self.policy)

    def alive(self) -> list[Sequence]:
        return [*self.batch.running, *self.batch.waiting]

    def arrive(
        self, *, prompt_tokens: int, output_tokens: int, ttft_s: float, pace_tok_s: float
    ) -> Sequence:
        """One who asks now."""
        self.arrived += 1
        one = Sequence(
            request_id=RequestId(f"r{self.arrived}"),
            prompt_tokens=prompt_tokens,
            output_tokens_max=self.asking.output_tokens_max,
            arrived_at=self.now,
            pace_tok_s=pace_tok_s,
            reads_until=self.now + ttft_s,
        )
        self._lengths[one], self._base[one] = output_tokens, one.reads_until
        self.batch.add(one)
        return one

    def step(self, *, asks: bool = True) -> Plan:
        """One iteration; people come meanwhile."""
        while asks and self._next_at <= self.now:
            self._ask()
        plan = self.batch.plan(self.now)
        self.rounds += 1
        self._note()
        if not plan.entries:
            self.now = max(self._next_at, self.now + 1e-3)
            return plan
        model = self.limits.latency
        assert model is not None
        self.now += iteration_s(plan.work, model=model)
        for one in self.batch.commit(plan):
            self._deliver(one)
        return plan

    def _ask(self) -> None:
        draw, asking = self.draw, self.asking
        self._next_at += draw.expovariate(asking.rate_req_s)
        self.arrive(
            prompt_tokens=draw.randint(1, draw.choice([100, 500, asking.prompt_tokens_max])),
            output_tokens=draw.randint(1, asking.output_tokens_max),
            ttft_s=draw.uniform(*asking.ttft_s),
            pace_tok_s=draw.choice(asking.paces_tok_s),
        )

    def _note(self) -> None:
        """Verdicts are given at once and stay."""
        for one in self.batch.waiting:
            self._note_verdict(one)
            if one in self._holding:
                self._holding.remove(one)
                self.dropped += 1
        for one in self.batch.running:
            self._note_verdict(one)
            if one in self.accepted:
                self._holding.add(one)

    def _note_verdict(self, one: Sequence) -> None:
        verdict = self.policy.verdict(one)
        assert verdict is not Verdict.NEW
        assert verdict is Verdict.ACCEPTED or one not in self.accepted
        if verdict is Verdict.ACCEPTED:
            self.accepted.add(one)

    def _deliver(self, one: Sequence) -> None:
        base, allowed_s = self._base[one], (one.generated - 1) / one.pace_tok_s
        slip_s = TOLERANCE * (allowed_s if allowed_s else base - one.arrived_at)
        if self.now > base + allowed_s + slip_s + ROUNDING_S:
            self.late.add(one)
        if one.generated == 1:
            self._base[one] = max(base, self.now)
        one.reads_until = max(one.reads_until, self.now) + 1 / one.pace_tok_s
        if one.generated >= self._lengths[one]:
            self.batch.end(one)
            self.ended += 1
            self._holding.discard(one)
            del self._lengths[one], self._base[one]
