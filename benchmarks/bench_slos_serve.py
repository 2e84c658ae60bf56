"""Time of one `Batch.plan` call under `slos-serve` with a round of admission in it, by load.

    python benchmarks/bench_slos_serve.py [--csv FILE] [--plot FILE]

Aim: median below 2 ms and p99 below 10 ms at 100 running and 20 new requests of 3 tiers. One
thread's processor time, so that other processes do not count. An 8B model on an H100; those that
run decode at 100, 200 and 400 ms a token behind 100 to 1,000 tokens; 20 come at once, with prompts
of 50 to 2,000 tokens due within 0.1 to 2 s. `overload` is the share of rounds in which those who
run could not keep their pace, so that there was nothing to decide; `greedy` that of rounds in which
the search met its limit.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import time
from collections.abc import Sequence as Ordered
from dataclasses import asdict, dataclass
from pathlib import Path

from readahead.core.latency.profile_text import profile
from readahead.core.planning.batch import Batch
from readahead.core.planning.policies.slos_serve import SlosServe
from readahead.core.planning.policy import EngineLimits
from readahead.core.planning.sequence import Sequence
from readahead.core.request import RequestId

PROFILE = "llama-3.1-8b-h100"
PACES_TOK_S = (10.0, 5.0, 2.5)
RUNNING = (20, 50, 100, 200, 500, 1000, 2000, 5000)
NEW = 20
ROUNDS = 200
MEDIAN_MS, P99_MS = 2.0, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One load."""

    running: int
    new: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    accepted: float
    greedy: float
    overload: float


def planned(draw: random.Random, running: int) -> tuple[float, SlosServe]:
    """Processor seconds of a plan with a round in it, and the policy that made it."""
    policy = SlosServe(reserve_whole=True)
    limits = EngineLimits(
        kv_blocks=100 * (running + NEW),
        block_tokens=16,
        requests_max=running + NEW,
        batch_tokens_max=16_384,
        latency=profile(PROFILE).latency,
    )
    batch = Batch(limits=limits, policy=policy)
    for number in range(running):
        one = _asked(draw, f"r{number}", draw.randint(100, 1000))
        one.generated = draw.randint(1, 100)
        one.computed = one.known - 1
        one.reads_until = draw.uniform(0.1, 0.5)
        one.blocks = limits.blocks_for(one.known)
        assert batch.take(one.blocks)
        batch.running.append(one)
    batch.plan(0.0)
    for number in range(NEW):
        one = _asked(draw, f"n{number}", draw.randint(50, 2000))
        one.reads_until = draw.uniform(0.1, 2.0)
        batch.add(one)
    started = time.thread_time()
    batch.plan(0.0)
    return time.thread_time() - started, policy


def _asked(draw: random.Random, name: str, prompt_tokens: int) -> Sequence:
    return Sequence(
        request_id=RequestId(name),
        prompt_tokens=prompt_tokens,
        output_tokens_max=500,
        arrived_at=0.0,
        pace_tok_s=draw.choice(PACES_TOK_S),
    )


def row(running: int) -> Row:
    """All rounds of one load."""
    draw = random.Random(f"slos-serve/{running}")
    took_ms, accepted, greedy, overloaded = [], 0, 0, 0
    for _ in range(ROUNDS):
        took_s, policy = planned(draw, running)
        counts = policy.counts
        took_ms.append(took_s * 1e3)
        accepted += counts.accepted
        greedy += counts.greedy
        overloaded += counts.overloaded
    return Row(
        running=running,
        new=NEW,
        p50_ms=statistics.median(took_ms),
        p99_ms=statistics.quantiles(took_ms, n=100)[98],
        max_ms=max(took_ms),
        accepted=accepted / ROUNDS,
        greedy=greedy / ROUNDS,
        overload=overloaded / ROUNDS,
    )


def plot(rows: Ordered[Row], path: Path) -> None:
    """Times by load, with the aim."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.subplots()
    sizes = [each.running for each in rows]
    ax.plot(sizes, [each.p50_ms for each in rows], marker="o", label="median")
    ax.plot(sizes, [each.p99_ms for each in rows], marker="s", label="p99")
    for bound_ms in (MEDIAN_MS, P99_MS):
        ax.axhline(bound_ms, color="0.6", linewidth=0.8, linestyle="--")
    ax.set(
        xscale="log",
        yscale="log",
        xlabel=f"running requests, {NEW} new",
        ylabel="one plan with a round, ms",
    )
    ax.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    print(
        f"{'running':>8}{'new':>5}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'accepted':>10}"
        f"{'greedy':>8}{'overload':>10}"
    )
    rows = []
    for running in RUNNING:
        one = row(running)
        rows.append(one)
        print(
            f"{one.running:>8}{one.new:>5}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{one.max_ms:>9.2f}"
            f"{one.accepted:>10.1f}{one.greedy:>8.1%}{one.overload:>10.1%}"
        )
    if given.csv is not None:
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(asdict(rows[0])))
            writer.writeheader()
            writer.writerows(asdict(each) for each in rows)
    if given.plot is not None:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
