"""Time of one `Batch.plan` call, by policy and load.

    python benchmarks/bench_planning.py

Aim: at most 1 ms p99 at 256 running and 50 waiting. One thread's processor time, so that other
processes do not count. An 8B model on an A100-80G; running sequences decode at 50 to 4,200 tokens
of context with 0 to 10 s left to read, prompts of 50 to 4,000 tokens wait and can always be let in;
for each one that is, another comes and a random answer ends.
"""

from __future__ import annotations

import random
import statistics
import time

from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G, iteration_s
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.registry import POLICIES, make_policy
from readahead.core.planning.policy import EngineLimits
from readahead.core.planning.sequence import Sequence
from readahead.core.request import RequestId

LOADS = ((256, 50), (500, 100))
CALLS = 1000
PACE_TOK_S = 5.0
ROOM = 64
"""Requests that may run over those that do, so that there is a prompt to plan in each call."""


class Bench:
    """An engine whose answers end, and are replaced, at a steady rate."""

    def __init__(self, policy: str, running: int, waiting: int) -> None:
        self.draw = random.Random(f"{policy}/{running}")
        self.now, self.count = 0.0, 0
        self.running, self.waiting = running, waiting
        limits = EngineLimits(
            kv_blocks=80_000,
            block_tokens=16,
            requests_max=running + ROOM,
            batch_tokens_max=8192,
            latency=LLAMA_3_1_8B_A100_80G,
        )
        self.batch = Batch(limits=limits, policy=make_policy(policy))
        for _ in range(running):
            self.batch.running.append(self.decoding())

    def arrival(self) -> Sequence:
        self.count += 1
        return Sequence(
            request_id=RequestId(f"r{self.count}"),
            prompt_tokens=self.draw.randint(50, 4000),
            output_tokens_max=100_000,
            arrived_at=self.now,
            pace_tok_s=PACE_TOK_S,
            reads_until=self.now + 1.2,
        )

    def decoding(self) -> Sequence:
        sequence = self.arrival()
        sequence.generated = self.draw.randint(1, 200)
        sequence.computed = sequence.known - 1
        sequence.reads_until = self.now + self.draw.uniform(0.05, 10)
        blocks = self.batch.limits.blocks_for(sequence.known)
        assert self.batch.take(blocks)
        sequence.blocks = blocks
        return sequence

    def run(self) -> list[float]:
        """Processor seconds of each call."""
        took_s = []
        for _ in range(CALLS):
            while len(self.batch.waiting) < self.waiting:
                self.batch.add(self.arrival())
            started = time.thread_time()
            plan = self.batch.plan(self.now)
            took_s.append(time.thread_time() - started)
            self.now += max(1e-3, iteration_s(plan.work, model=LLAMA_3_1_8B_A100_80G))
            for sequence in self.batch.commit(plan):
                due_at = max(sequence.reads_until, self.now)
                sequence.reads_until = due_at + 1 / PACE_TOK_S
            while len(self.batch.running) > self.running:
                self.batch.end(self.draw.choice(self.batch.running))
        return took_s


def main() -> None:
    """Prints a table."""
    print(f"{'policy':<14}{'running':>8}{'waiting':>8}{'p50 us':>9}{'p99 us':>9}")
    for running, waiting in LOADS:
        for policy in POLICIES:
            took_s = Bench(policy, running, waiting).run()
            p99_s = statistics.quantiles(took_s, n=100)[98]
            p50_us, p99_us = statistics.median(took_s) * 1e6, p99_s * 1e6
            print(f"{policy:<14}{running:>8}{waiting:>8}{p50_us:>9.0f}{p99_us:>9.0f}")


if __name__ == "__main__":
    main()
