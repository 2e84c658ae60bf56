"""Emulated engines that take next to no time, and what they say."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.engine import LegOutput, LegRequest

PROFILE = EmulatedProfile(
    model="test",
    latency=replace(LLAMA_3_1_8B_A100_80G, time_scale=1e-6),
    vocabulary_tokens=2048,
    context_tokens_max=512,
    block_tokens=16,
    kv_blocks=40,
    requests_max=8,
    batch_tokens_max=64,
)


def made_prompt(seed: int, tokens: int) -> list[int]:
    draws = random.Random(seed)
    return [draws.randrange(2048) for _ in range(tokens)]


async def run(engine: EmulatedEngine, request: LegRequest) -> list[LegOutput]:
    return [output async for output in engine.run(request)]


def said(outputs: Sequence[LegOutput]) -> tuple[list[int], str]:
    return (
        [token for output in outputs for token in output.token_ids],
        "".join(output.text for output in outputs),
    )
