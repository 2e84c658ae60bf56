"""An engine core is killed outright in the middle of a move between two vLLM engines."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack

import pytest
from cluster_in_process import cluster, router_config
from moving_engines import Home, alone, ask, sampling, started
from restless import RESTLESS
from vllm_process import engine_cores, wait_until

from readahead.core.cluster import Role
from readahead.core.messages import MigrateLeg
from readahead.router.moves import MoveStage

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(300),
]


@pytest.mark.parametrize(
    ("stage", "victim"),
    [(MoveStage.SUBMITTED, "source"), (MoveStage.STOPPED, "target")],
)
async def test_kill_of_an_engine_in_a_move_loses_no_token(stage: MoveStage, victim: str) -> None:
    """The one that is left says the rest, as if nothing had been."""
    async with AsyncExitStack() as stack:
        engines, cores = {}, {}
        for name, is_asynchronous in (("d0", False), ("d1", True)):
            known = set(engine_cores(os.getpid()))
            engines[name] = await started(is_asynchronous=is_asynchronous)
            stack.push_async_callback(engines[name].close)
            (cores[name],) = set(engine_cores(os.getpid())) - known
        expected = await alone(engines["d0"], 5, sampling(5))
        roles = {name: (Role.DECODE, engine) for name, engine in engines.items()}
        config = router_config(core=RESTLESS)
        running = await stack.enter_async_context(cluster(roles, config=config))
        home = Home(engines, running)
        struck: list[str] = []

        def kill(reached: MoveStage, command: MigrateLeg) -> None:
            if reached is stage and not struck:
                struck.append(command.source if victim == "source" else command.target)
                os.kill(cores[struck[0]], signal.SIGKILL)

        running.router.driver.moves.on_stage = kill
        home.send_about(5, chance=0.2)
        answer = await ask(home, "killed", 5, sampling(5))
        assert struck
        assert answer.error is None, answer.error
        assert (answer.token_ids, answer.text) == expected
        del home.engines[struck[0]]
        await wait_until(home.is_clean, limit_s=35)
