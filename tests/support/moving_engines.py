"""vLLM engines between which requests move, and what they are asked."""

from __future__ import annotations

import os
import random
import signal
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from cluster_in_process import MODEL, Answer, Cluster, collect
from restless import set_restless
from vllm_process import engine_cores

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role
from readahead.core.request import Leg, RequestId
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegRequest, Sampling
from readahead.v1 import inference_service_pb2, sampling_pb2

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

KV = KvConfig(backend="grpc", lease_s=6, host_bytes=32 << 20)
PROMPT_IDS_MAX = 1000
"""The toy prompts' vocabulary."""


async def started(*, is_asynchronous: bool, **changes: Any) -> VllmEngine:
    """A decode engine, some of its settings changed."""
    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(
        model_path=model_path, model_name=MODEL, dtype="float32", kv_bytes=48 << 20
    )
    config = replace(config, **changes)
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        from readahead.services.engine import vllm, vllm_setup

        def settings(*arguments: Any) -> Any:
            made = vllm_setup.vllm_config(*arguments)
            made.scheduler_config.async_scheduling = is_asynchronous
            return made

        patch.setattr(vllm, "vllm_config", settings)
        return await vllm.VllmEngine.start(config, KV, Role.DECODE)


@dataclass(slots=True)
class Mortals:
    """Two engines whose cores a test kills; the second one schedules asynchronously."""

    engines: dict[str, VllmEngine] = field(default_factory=dict)
    cores: dict[str, int] = field(default_factory=dict)
    """Process ids, of those that live."""

    @property
    def living(self) -> set[str]:
        """Names."""
        return set(self.cores)

    def kill(self, name: str) -> None:
        """As the out-of-memory killer does it."""
        os.kill(self.cores.pop(name), signal.SIGKILL)

    async def replace_lost(self) -> None:
        """Starts engines in the place of those that were killed."""
        for name, is_asynchronous in (("d0", False), ("d1", True)):
            if name in self.cores:
                continue
            if name in self.engines:
                await self.engines.pop(name).close()
            others = set(engine_cores(os.getpid()))
            self.engines[name] = await started(is_asynchronous=is_asynchronous)
            (self.cores[name],) = set(engine_cores(os.getpid())) - others

    async def close(self) -> None:
        """Ends all of them."""
        for engine in self.engines.values():
            await engine.close()


@dataclass(slots=True)
class Home:
    """Two engines, their workers and a router that can send readers about."""

    engines: dict[str, VllmEngine]
    running: Cluster

    def send_about(self, seed: int, *, chance: float) -> None:
        set_restless(self.running.router.driver.state, random.Random(seed), chance=chance)

    async def is_clean(self) -> bool:
        """Nothing on the devices, and nothing on the hosts."""
        for engine in self.engines.values():
            state = await engine._call("readahead_inspect")
            used = engine.description.kv_blocks - state["kv_blocks_free"]
            if used or state["host_copies"] or await engine._call("readahead_parked"):
                return False
        return not self.running.router.driver.sessions


def sampling(index: int) -> Sampling:
    """Greedy, of many lengths."""
    return Sampling(max_tokens=60 + 9 * index, temperature=0.0, ignore_eos=True)


def prompt_of(index: int) -> list[int]:
    draw = random.Random(900 + index)
    return [draw.randrange(PROMPT_IDS_MAX) for _ in range(20 + 53 * index)]


async def alone(engine: VllmEngine, index: int, how: Sampling) -> tuple[list[int], str]:
    """What one engine says."""
    token_ids: list[int] = []
    text: list[str] = []
    request = LegRequest(
        key=(RequestId(f"alone-{index}-{id(how)}"), 1),
        leg=Leg.WHOLE,
        prompt_token_ids=prompt_of(index),
        sampling=how,
    )
    async for output in engine.run(request):
        token_ids.extend(output.token_ids)
        text.append(output.text)
    return token_ids, "".join(text)


async def ask(home: Home, name: str, index: int, how: Sampling) -> Answer:
    """The same through the router."""
    request = inference_service_pb2.GenerateRequest(
        request_id=f"{name}-{index}",
        token_ids=inference_service_pb2.TokenIds(ids=prompt_of(index)),
        sampling=sampling_pb2.SamplingParams(
            max_tokens=how.max_tokens,
            temperature=how.temperature,
            presence_penalty=how.presence_penalty,
            seed=how.seed,
            stop=how.stop,
            ignore_eos=how.ignore_eos,
            min_tokens=how.min_tokens,
        ),
    )
    return await collect(home.running.stub.Generate(request))
