"""A batch with readers, for tests of policies: each iteration takes the time the model says."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from readahead.core.latency.iteration import LatencyModel, LatencyPlane, iteration_s
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.registry import make_policy
from readahead.core.planning.policy import EngineLimits, Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import RequestId

MODEL = LatencyModel(
    name="small",
    planes=(
        LatencyPlane(token_s=1e-3, past_token_s=1e-5, prefill_pair_s=1e-6, base_s=4e-3),
        LatencyPlane(request_s=1e-3, past_token_s=1e-5, base_s=1e-2),
    ),
)
LIMITS = EngineLimits(
    kv_blocks=24, block_tokens=4, requests_max=6, batch_tokens_max=24, latency=MODEL
)
KNOBS: Mapping[str, Mapping[str, float]] = {
    "sarathi": {"chunk_tokens": 16},
    "andes": {"quantum_iterations": 7, "horizon_s": 1.0},
    "tokenflow": {"quantum_iterations": 7, "scheduling_s": 0.01},
    "readahead": {"rich_s": 0.5, "cap_tokens": 16, "patience_s": 2.0},
}
"""Knobs that fit an engine this small."""


def sequence(
    number: int,
    *,
    prompt_tokens: int,
    output_tokens: int = 8,
    now: float = 0.0,
    pace_tok_s: float = 5.0,
    is_pulled: bool = False,
    cached_tokens: int = 0,
) -> Sequence:
    """A sequence that arrives now."""
    return Sequence(
        request_id=RequestId(f"r{number}"),
        prompt_tokens=prompt_tokens,
        output_tokens_max=output_tokens,
        arrived_at=now,
        pace_tok_s=pace_tok_s,
        reads_until=now + 1 + 1 / pace_tok_s,
        is_pulled=is_pulled,
        cached_tokens=cached_tokens,
    )


@dataclass(slots=True)
class Rounds:
    """Plans, carries out, and lets people read."""

    policy: str
    limits: EngineLimits = LIMITS
    now: float = 0.0
    iterations: int = 0
    batch: Batch = field(init=False)
    clocks: dict[Sequence, ReadingClock] = field(default_factory=dict)
    made: dict[Sequence, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        policy = make_policy(self.policy, KNOBS.get(self.policy, {}))
        self.batch = Batch(limits=self.limits, policy=policy)

    def arrive(self, one: Sequence) -> None:
        """Puts a sequence in the queue."""
        self.clocks[one] = ReadingClock(
            pace_tok_s=one.pace_tok_s, commit_s=one.arrived_at, offset_s=1.0
        )
        self.made[one] = 0
        self.batch.add(one)

    def plan(self) -> Plan:
        """The next iteration."""
        return self.batch.plan(self.now)

    def carry_out(self, plan: Plan, *, iterations: int = 1) -> list[Sequence]:
        """Commits, and delivers each iteration's tokens at its end."""
        made = self.batch.commit(plan, iterations=iterations)
        singles = sum(tokens == 1 for _, tokens in plan.entries)
        pairs = sum(tokens * tokens for _, tokens in plan.entries if tokens > 1)
        for done in range(iterations):
            work = dataclasses.replace(
                plan.work,
                past_tokens=plan.work.past_tokens + done * singles,
                prefill_pairs=plan.work.prefill_pairs + done * pairs,
            )
            self.now += iteration_s(work, model=MODEL)
            for one in made:
                self.clocks[one].deliver(1, now=self.now)
        for one in made:
            self.made[one] += iterations
            one.reads_until = self.clocks[one].deadline_s
        self.iterations += iterations
        return made

    def alive(self) -> list[Sequence]:
        """All that have not ended."""
        return [*self.batch.running, *self.batch.pulling, *self.batch.waiting]

    def end_finished(self) -> list[Sequence]:
        """Ends those that have all their tokens."""
        over = [s for s in self.batch.running if s.generated >= s.output_tokens_max]
        for one in over:
            self.batch.end(one)
        return over

    def state(self) -> object:
        """Everything that a later plan may depend on, by number instead of by object."""
        return (
            [_seen(s) for s in self.batch.running],
            [_seen(s) for s in self.batch.waiting],
            self.batch.blocks_free,
            self.batch.preemptions,
        )


def _seen(one: Sequence) -> object:
    return (one.request_id, one.computed, one.generated, one.blocks, round(one.reads_until, 9))


def shown(plan: Plan) -> object:
    """A plan, by number instead of by object."""
    return (
        [(s.request_id, tokens) for s, tokens in plan.entries],
        [s.request_id for s in plan.pulls],
        plan.work,
    )


def random_sequences(draw: random.Random, count: int) -> list[tuple[float, int, int]]:
    """Arrival gaps, seconds, prompts and answers, tokens, that each fit the small engine."""
    found = []
    for _ in range(count):
        prompt = draw.choice([draw.randint(1, 8), draw.randint(1, 60)])
        output = draw.randint(1, min(40, 90 - prompt))
        found.append((draw.expovariate(10.0), prompt, output))
    return found
