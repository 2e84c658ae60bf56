"""The router's idle time against readers who keep their own log of stalls, on the real cluster."""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass

import pytest
from up_process import UpProcess
from worker_inspection import wait_all_joined

from readahead.cli.up.tiny_model import SPECIAL_TOKENS, TinyModel
from readahead.client import AsyncClient, ReadingState
from readahead.client.clock import monotonic_s

pytestmark = pytest.mark.quiet

SEED = 3
REQUESTS = 24
AT_ONCE = 6
TOKENS = 120
PACE_TOK_S = 400.0
"""Faster than the engine is with several at once, so that every reader stalls again and again."""
APART_S_MAX = 0.020


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """How one reader fared, by his own log and by the router's clock."""

    pieces: int
    took_s: float
    stalls: int
    idle_s: float
    told: ReadingState

    @property
    def apart_s(self) -> float:
        return abs(self.idle_s - self.told.idle_s)


async def _read(client: AsyncClient, prompt: list[int]) -> Reader:
    began_s = monotonic_s()
    stream = client.generate(
        token_ids=prompt,
        max_tokens=TOKENS,
        temperature=0,
        ignore_eos=True,
        pace_tok_s=PACE_TOK_S,
    )
    async with stream.read_at(PACE_TOK_S) as reader:
        pieces = [piece async for piece in reader]
    assert reader.finished is not None
    assert reader.finished.reading is not None
    return Reader(
        pieces=len(pieces),
        took_s=monotonic_s() - began_s,
        stalls=len(reader.stalls),
        idle_s=reader.idle_s,
        told=reader.finished.reading,
    )


async def test_router_and_reader_agree_on_how_long_he_waited(cluster: UpProcess) -> None:
    """Within 20 ms at the median: short prompts and long ones, several at once."""
    wait_all_joined(cluster)
    rng = random.Random(SEED)
    vocabulary = range(len(SPECIAL_TOKENS), TinyModel().vocabulary_tokens)
    prompts = [rng.choices(vocabulary, k=rng.randint(4, 300)) for _ in range(REQUESTS)]
    places = asyncio.Semaphore(AT_ONCE)

    async def read(client: AsyncClient, prompt: list[int]) -> Reader:
        async with places:
            return await _read(client, prompt)

    async with AsyncClient(cluster.grpc) as client:
        await client.wait_ready(30)
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(read(client, prompt)) for prompt in prompts]
    readers = [task.result() for task in running]

    apart_s = sorted(reader.apart_s for reader in readers)
    shown = [f"{1e3 * reader.idle_s:.0f}/{1e3 * reader.told.idle_s:.0f}" for reader in readers]
    print(f"idle, reader/router, ms: {' '.join(shown)}")
    print(f"apart, ms: {[round(1e3 * each, 1) for each in apart_s]}")
    assert statistics.median(apart_s) <= APART_S_MAX
    assert min(reader.stalls for reader in readers) >= 2, "he must have run out in the middle"
    assert statistics.median(reader.idle_s for reader in readers) >= 0.1
    assert {reader.told.pace_source for reader in readers} == {"explicit"}
    # What he did not wait, he read: his log is complete.
    for reader in readers:
        assert abs(reader.took_s - reader.idle_s - TOKENS / PACE_TOK_S) <= 0.25
