"""Engine cores are killed outright at every stage of a move between two vLLM engines."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from cluster_in_process import cluster, router_config
from moving_cluster import Fault
from moving_engines import Home, Mortals, alone, ask, sampling
from restless import RESTLESS
from vllm_process import wait_no_cores, wait_until

from readahead.core.cluster import Role
from readahead.core.messages import MigrateLeg
from readahead.router.moves import MoveStage

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]

REQUEST = 5
PINNED_S_MAX = 35.0
"""Until nothing of a broken move may be left; in truth it takes a moment."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortals() -> AsyncIterator[Mortals]:
    """Nothing of them lives at the exit."""
    engines = Mortals()
    try:
        yield engines
    finally:
        await engines.close()
    await wait_no_cores(os.getpid())


@pytest.mark.parametrize("victim", ["source", "target", "both"])
@pytest.mark.parametrize("stage", list(MoveStage))
async def test_kill_at_a_stage_of_a_move_loses_no_token(
    mortals: Mortals, stage: MoveStage, victim: str
) -> None:
    """Who is left says the rest, as if nothing had been, and holds nothing afterwards."""
    await mortals.replace_lost()
    expected = await alone(mortals.engines["d0"], REQUEST, sampling(REQUEST))
    roles = {name: (Role.DECODE, engine) for name, engine in mortals.engines.items()}
    struck: list[MigrateLeg] = []

    def kill(reached: MoveStage, command: MigrateLeg) -> None:
        if reached is not stage or struck:
            return
        struck.append(command)
        if victim in ("source", "both"):
            mortals.kill(command.source)
        if victim in ("target", "both"):
            mortals.kill(command.target)

    async with cluster(roles, config=router_config(core=RESTLESS)) as running:
        home = Home(dict(mortals.engines), running)
        running.router.driver.moves.on_stage = kill
        home.send_about(REQUEST, chance=0.2)
        answer = await ask(home, f"killed-{victim}-{stage}", REQUEST, sampling(REQUEST))
        assert struck
        if answer.error is None:
            assert (answer.token_ids, answer.text) == expected
        else:
            assert Fault(stage=stage, victim=victim, moves_before=0).may_break(), answer.error
            assert answer.token_ids == expected[0][: len(answer.token_ids)]
            assert expected[1].startswith(answer.text)
        home.engines = {name: mortals.engines[name] for name in mortals.living}
        await wait_until(home.is_clean, limit_s=PINNED_S_MAX)
