"""Readers on a decode worker whose KV memory holds a third of them: parked, or preempted?

Run: python experiments/parking/measure.py [--seed 0] [--rows rows.csv]
Starts one engine of the tiny model on this machine, serves the same arrivals under each arm, and
adds a row for each to the file. `--table rows.csv` prints the README's table from it.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import Leg, RequestId
from readahead.runtime.clock import monotonic_s
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import Engine, LegRequest, Sampling

READERS = 24
PACE_TOK_S = 5.0
START_S = 1.0
"""What a reader thinks normal before his first token."""
ARRIVALS_S = 4.0
PROMPT_TOKENS = (500, 900)
ANSWER_TOKENS = (500, 1000)
BLOCK_BYTES = 256 << 10
"""128 tokens of the tiny model in bfloat16."""
BLOCK_TOKENS = 128
ARMS: Mapping[str, tuple[str, Mapping[str, float]]] = {
    "vllm": ("vllm", {}),
    "readahead": ("readahead", {}),
    "readahead, parking": ("readahead", {"park": 1}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One request."""

    after_s: float
    prompt: tuple[int, ...]
    answer_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One arm on one seed. Seconds."""

    seed: int
    arm: str
    idle_p50_s: float
    idle_p99_s: float
    """Of so few readers the longest."""
    idle_mean_s: float
    first_token_p99_s: float
    makespan_s: float
    preemptions: int
    """By vLLM's own count, in which a park is one too."""
    parks: int
    idles_s: str
    """Of all readers, for what several seeds say together."""


def readers_of(seed: int) -> list[Reader]:
    """The arrivals of a seed."""
    rng = random.Random(f"parking/{seed}")
    starts = sorted(rng.uniform(0, ARRIVALS_S) for _ in range(READERS))
    return [
        Reader(
            after_s=start,
            prompt=tuple(rng.randrange(5, 2000) for _ in range(rng.randint(*PROMPT_TOKENS))),
            answer_tokens=rng.randint(*ANSWER_TOKENS),
        )
        for start in starts
    ]


def blocks_of(readers: Sequence[Reader]) -> int:
    """KV blocks of all at their longest."""
    return sum(-(-(len(r.prompt) + r.answer_tokens) // BLOCK_TOKENS) for r in readers)


async def read(engine: Engine, arm: str, number: int, reader: Reader) -> tuple[float, float]:
    """One reader from his arrival to the last token. Returns his idle time, and the first token's
    delay."""
    await asyncio.sleep(reader.after_s)
    arrived_at = monotonic_s()
    clock = ReadingClock(pace_tok_s=PACE_TOK_S, commit_s=arrived_at, offset_s=START_S)
    request = LegRequest(
        key=(RequestId(f"{arm}-{number}"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=reader.prompt,
        sampling=Sampling(max_tokens=reader.answer_tokens, temperature=0.0, ignore_eos=True),
        pace_tok_s=PACE_TOK_S,
        arrived_at=arrived_at,
    )
    first_s = 0.0
    async for output in engine.run(request):
        now = monotonic_s()
        if output.token_ids:
            first_s = first_s or now - arrived_at
            clock.deliver(len(output.token_ids), now=now)
    assert clock.delivered == reader.answer_tokens
    return clock.idle_s(clock.deadline_s), first_s


def quantile(values: Sequence[float], share: float) -> float:
    """That share of the values is at or below it."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def row_of(
    seed: int,
    arm: str,
    *,
    idles: Sequence[float],
    firsts: Sequence[float],
    makespan_s: float,
    preemptions: int,
    parks: int,
) -> Row:
    """From each reader's idle time and the delay of his first token."""
    return Row(
        seed=seed,
        arm=arm,
        idle_p50_s=round(statistics.median(idles), 3),
        idle_p99_s=round(quantile(idles, 0.99), 3),
        idle_mean_s=round(statistics.fmean(idles), 3),
        first_token_p99_s=round(quantile(firsts, 0.99), 3),
        makespan_s=round(makespan_s, 2),
        preemptions=preemptions,
        parks=parks,
        idles_s=" ".join(f"{each:.3f}" for each in sorted(idles)),
    )


async def run_arm(engine: Any, arm: str, seed: int, preempted: list[int]) -> Row:
    """All readers under one policy."""
    policy, knobs = ARMS[arm]
    await engine.select_policy(policy, knobs)
    before, before_moves = preempted[0], await engine._call("readahead_moves")
    began = monotonic_s()
    found = await asyncio.gather(
        *(read(engine, f"{policy}-{len(knobs)}", n, r) for n, r in enumerate(readers_of(seed)))
    )
    moves = await engine._call("readahead_moves")
    return row_of(
        seed,
        arm,
        idles=[idle_s for idle_s, _ in found],
        firsts=[first_s for _, first_s in found],
        makespan_s=monotonic_s() - began,
        preemptions=preempted[0] - before,
        parks=moves["parks"] - before_moves["parks"],
    )


async def measure(seed: int) -> list[Row]:
    """Every arm on one seed, one after the other on the same engine."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine import vllm, vllm_setup

    preempted = [0]
    record = vllm_setup.LoadLogger.record

    def counting(
        self: Any, scheduler_stats: Any, iteration_stats: Any, *more: Any, **named: Any
    ) -> None:
        if iteration_stats is not None:
            preempted[0] += iteration_stats.num_preempted_reqs
        record(self, scheduler_stats, iteration_stats, *more, **named)

    vars_of: Any = vllm_setup.LoadLogger
    vars_of.record = counting
    config = EngineConfig(
        model_path=str(tiny_model.ensure(tiny_model.TinyModel(), os.environ)),
        kv_bytes=(blocks_of(readers_of(seed)) // 3 + 1) * BLOCK_BYTES,
        latency_profile="tiny-cpu",
        requests_max=64,
    )
    engine = await vllm.VllmEngine.start(config, KvConfig(backend="grpc"), Role.DECODE)
    try:
        warm = Reader(after_s=0.0, prompt=tuple(range(5, 200)), answer_tokens=50)
        await read(engine, "warm", 0, warm)
        arms = list(ARMS)
        random.Random(seed).shuffle(arms)
        return [await run_arm(engine, arm, seed, preempted) for arm in arms]
    finally:
        await engine.close()


def table(path: Path) -> str:
    """Each seed, and all seeds' readers together."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "| seed | arm | idle p50 | p99 | mean | first token p99 | all done | preemptions | parks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['seed']} | {row['arm']} | {float(row['idle_p50_s']):.2f} s"
        f" | {float(row['idle_p99_s']):.2f} s | {float(row['idle_mean_s']):.2f} s"
        f" | {float(row['first_token_p99_s']):.2f} s | {float(row['makespan_s']):.1f} s"
        f" | {row['preemptions']} | {row['parks']} |"
        for row in sorted(rows, key=lambda r: (int(r["seed"]), list(ARMS).index(r["arm"])))
    ]
    lines += ["", "| all seeds | readers | idle p50 | p99 | mean |", "|---|---|---|---|---|"]
    for arm in ARMS:
        idles = [float(x) for row in rows if row["arm"] == arm for x in row["idles_s"].split()]
        lines.append(
            f"| {arm} | {len(idles)} | {statistics.median(idles):.2f} s"
            f" | {quantile(idles, 0.99):.2f} s | {statistics.fmean(idles):.2f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures one seed, or prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=Path, default=Path("rows.csv"))
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.table is not None:
        print(table(given.table))  # noqa: T201
        return
    rows = asyncio.run(measure(given.seed))
    is_new = not given.rows.exists()
    with given.rows.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        if is_new:
            writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    for row in rows:
        print(row)  # noqa: T201


if __name__ == "__main__":
    main()
