"""Workers are killed outright in the middle of moves: real processes, a router that arbitrates.

`READAHEAD_MOVE_SEEDS=17,18 pytest tests/integration/test_kill_moves.py` repeats given runs.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from moving_cluster import MovingCluster, moving_cluster

from readahead.router import metrics

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SEEDS = [int(seed) for seed in os.environ.get("READAHEAD_MOVE_SEEDS", "1,2,3,4").split(",")]
MANY = 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[MovingCluster]:
    """Workers that live as long as they are let."""
    async with moving_cluster(tiny_model, tmp_path_factory.mktemp("moves")) as running:
        yield running


def committed() -> float:
    return float(metrics.MOVES.labels("committed")._value.get())


async def test_streams_that_move_all_the_time_are_whole(cluster: MovingCluster) -> None:
    """Nobody is lost: every stream says what one worker would say."""
    await cluster.restart_lost()
    draw = random.Random(0)
    enough = committed() + 16
    while committed() < enough:
        await cluster.run(draw.randrange(1000), requests=8, is_faulty=False)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_kill_in_a_move_loses_no_token(cluster: MovingCluster, seed: int) -> None:
    """Source, target, both, or the reader; at any stage."""
    await cluster.restart_lost()
    await cluster.run(seed)


@pytest.mark.slow
async def test_many_kills_in_moves_lose_no_token(cluster: MovingCluster) -> None:
    """The same, 200 times; nearly every run has its fault."""
    struck = 0
    for seed in range(1000, 1000 + MANY):
        await cluster.restart_lost()
        await cluster.run(seed)
        struck += bool(cluster.struck)
    assert struck >= 0.8 * MANY
