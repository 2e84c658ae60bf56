"""What is left when an engine core or a worker is killed outright."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from vllm_process import engine_cores, is_alive, wait_until

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import Leg, RequestId
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegOutput, LegRequest, Sampling

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
    pytest.mark.timeout(180),
]


@pytest.fixture(scope="module")
def model_path() -> str:
    return str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))


def open_contexts() -> list[object]:
    """ZeroMQ contexts that somebody owns and nobody ended, whether or not they are garbage."""
    import zmq

    contexts = [one for one in gc.get_objects() if isinstance(one, zmq.Context)]
    return [one for one in contexts if not one._shadow and not one.closed]


async def exhaust(outputs: AsyncIterator[LegOutput]) -> None:
    async for _ in outputs:
        pass


async def test_dead_core_fails_its_legs_and_the_engine(model_path: str) -> None:
    """A running leg ends with ENGINE_FAILED at once, the next is refused, close still works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine.vllm import VllmEngine

        config = EngineConfig(model_path=model_path, dtype="float32")
        engine = await VllmEngine.start(config, KvConfig(), Role.DECODE)
    request = LegRequest(
        key=(RequestId("doomed"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=[7, 8, 9],
        sampling=Sampling(max_tokens=4000, ignore_eos=True),
    )
    outputs = engine.run(request)
    await anext(outputs)
    (core,) = engine_cores(os.getpid())
    os.kill(core, signal.SIGKILL)
    with pytest.raises(ReadaheadError) as caught:
        await exhaust(outputs)
    assert caught.value.reason is Reason.ENGINE_FAILED
    assert not await engine.is_healthy()
    with pytest.raises(ReadaheadError) as caught:
        await anext(engine.run(request))
    assert caught.value.reason is Reason.ENGINE_FAILED
    with pytest.raises(ReadaheadError):
        await engine.inspect()
    await engine.close()
    await engine.close()
    assert not engine_cores(os.getpid())
    assert not open_contexts()


@asynccontextmanager
async def running_zygote(log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "readahead.services.zygote",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def next_event(process: asyncio.subprocess.Process, kind: str) -> dict[str, object]:
    assert process.stdout is not None
    event: dict[str, object] = json.loads(await process.stdout.readline())
    assert event["event"] == kind, event
    return event


@pytest.mark.parametrize("victim", ["worker", "zygote"])
async def test_killed_parent_takes_its_engine_core_along(
    model_path: str, tmp_path: Path, victim: str
) -> None:
    """No engine core outlives its worker, no worker its zygote."""
    log = tmp_path / "decode-0.log"
    order = {
        "name": "decode-0",
        "log": str(log),
        "config": {"role": "decode", "engine": {"model_path": model_path, "dtype": "float32"}},
    }
    async with running_zygote(tmp_path / "zygote.log") as zygote:
        assert zygote.stdin is not None
        zygote.stdin.write(json.dumps(order).encode() + b"\n")
        await next_event(zygote, "imported")
        worker = int(str((await next_event(zygote, "forked"))["pid"]))

        async def has_started() -> bool:
            return log.exists() and "worker_started" in log.read_text()

        await wait_until(has_started, limit_s=60)
        (core,) = engine_cores(worker)
        os.kill(worker if victim == "worker" else zygote.pid, signal.SIGKILL)

        async def are_gone() -> bool:
            return not is_alive(worker) and not is_alive(core)

        await wait_until(are_gone, limit_s=5)
        if victim == "worker":
            event = await next_event(zygote, "exited")
            assert (event["pid"], event["status"]) == (worker, -signal.SIGKILL)
            zygote.stdin.close()
            assert await zygote.wait() == 0
