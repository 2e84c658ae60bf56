"""A prefill and a decode engine of one transport of KV caches, and how tests talk to them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from readahead.cli.up import tiny_model
from readahead.core.cluster import Role, WorkerLoad
from readahead.core.request import Leg, RequestId
from readahead.services.config import EngineConfig, KvConfig
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest, Sampling

if TYPE_CHECKING:
    from readahead.services.engine.vllm import VllmEngine

LEASE_S = 6
"""The least that vLLM can do."""


@dataclass(frozen=True, slots=True)
class Pair:
    prefill: VllmEngine
    decode: VllmEngine
    decode_log: Path
    """Of the decode engine's iterations."""


@dataclass(frozen=True, slots=True)
class Answer:
    token_ids: Sequence[int]
    text: str
    end: LegEnd
    outputs: Sequence[LegOutput]


async def answer(engine: VllmEngine, request: LegRequest) -> Answer:
    outputs = [output async for output in engine.run(request)]
    end = outputs[-1].end
    assert end is not None
    assert all(output.end is None for output in outputs[:-1])
    token_ids = [each for output in outputs for each in output.token_ids]
    return Answer(token_ids, "".join(output.text for output in outputs), end, outputs)


def leg(
    name: str, which: Leg, prompt: Sequence[int], sampling: Sampling | None = None
) -> LegRequest:
    return LegRequest(
        key=(RequestId(name), 1),
        leg=which,
        prompt_token_ids=prompt,
        sampling=sampling or Sampling(max_tokens=32, temperature=0.0),
    )


def prompt_of(tokens: int, *, salt: int) -> list[int]:
    """A prompt that shares no block with one of another salt."""
    return [5 + (salt * 131 + index * 17) % 2000 for index in range(tokens)]


async def is_empty(engine: VllmEngine) -> bool:
    state = await engine.inspect()
    free = WorkerLoad(running=0, waiting=0, kv_blocks_free=engine.description.kv_blocks)
    return state.load == free and not state.handovers_held


def _engine_config(**changes: Any) -> EngineConfig:
    model_path = str(tiny_model.ensure(tiny_model.TinyModel(), os.environ))
    config = EngineConfig(model_path=model_path, model_name="tiny", dtype="float32")
    return replace(config, **changes)


@asynccontextmanager
async def started(transport: str, role: Role, **changes: Any) -> AsyncIterator[VllmEngine]:
    """An engine, until the block is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from readahead.services.engine.vllm import VllmEngine

        kv = KvConfig(backend=transport, lease_s=LEASE_S)
        engine = await VllmEngine.start(_engine_config(**changes), kv, role)
        try:
            yield engine
        finally:
            await engine.close()


async def books(engine: VllmEngine) -> Mapping[str, int]:
    """All that the engine's connector has counted."""
    counts: Mapping[str, int] = await engine._call("readahead_inspect")
    return counts


def changed(handover: bytes, **changes: Any) -> bytes:
    """The handover with some of its parameters changed."""
    return json.dumps(json.loads(handover) | changes).encode()
