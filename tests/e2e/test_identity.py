"""Output through two pools is what one engine alone says, with one KV transfer per handover."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest
from reference_engine import reference_answers
from up_process import UpProcess, WorkerAddress
from waiting import wait_until
from worker_inspection import (
    nixl_failures,
    nixl_transfers,
    transfers,
    wait_all_free,
    wait_all_joined,
)

from readahead.cli.up.tiny_model import SPECIAL_TOKENS, TinyModel, ensure
from readahead.client import AsyncClient, Client
from readahead.core.config import PlacementConfig

SEED = 20
MAX_TOKENS = 32
HANDOVER_TOKENS_MIN = PlacementConfig().remote_prefill_tokens_min
BLOCK_TOKENS = 128
"""Of a KV block on a CPU."""
LENGTHS = (1, 2, 17, 31, 32, 33, 64, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1023, 1024, 1500)
"""Around the threshold of a handover and the edges of KV blocks."""
RANDOM_LENGTHS = 5
AT_ONCE = 8

Prompts = tuple[tuple[int, ...], ...]


def _prompts(salt: str, lengths: Sequence[int], *, random_lengths: int = 0) -> Prompts:
    """Random tokens; two salts share no prefix, so no engine has any of it in its prefix cache."""
    rng = random.Random(f"{SEED}-{salt}")
    drawn = [rng.randint(1, 1500) for _ in range(random_lengths)]
    vocabulary = range(len(SPECIAL_TOKENS), TinyModel().vocabulary_tokens)
    return tuple(tuple(rng.choices(vocabulary, k=length)) for length in (*lengths, *drawn))


ONE_BY_ONE = _prompts("one by one", LENGTHS, random_lengths=RANDOM_LENGTHS)
TOGETHER = _prompts("together", LENGTHS, random_lengths=RANDOM_LENGTHS)
AGAIN = _prompts("again", (1, 40, 128, 300, 513, 1200))


def _with_another_block(prompt: tuple[int, ...], index: int) -> tuple[int, ...]:
    """The prompt with one KV block's tokens replaced."""
    start, end = index * BLOCK_TOKENS, (index + 1) * BLOCK_TOKENS
    [other] = _prompts(f"block {index}", (BLOCK_TOKENS,))
    return prompt[:start] + other + prompt[end:]


[SOUND] = _prompts("sound", (9 * BLOCK_TOKENS + 1,))
DAMAGED = tuple(_with_another_block(SOUND, index) for index in range(9))


@pytest.fixture(scope="module")
def alone(
    cluster: UpProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[int, ...], list[int]]:
    """What one engine without a connector says to each prompt, of the cluster's very model."""
    prompts = (*ONE_BY_ONE, *TOGETHER, *AGAIN, SOUND, *DAMAGED)
    model = ensure(TinyModel(), {"READAHEAD_CACHE": str(cluster.cache)})
    folder = tmp_path_factory.mktemp("reference")
    answers = reference_answers(model, prompts, max_tokens=MAX_TOKENS, folder=folder)
    assert all(len(answer) == MAX_TOKENS for answer in answers)
    return dict(zip(prompts, answers, strict=True))


async def _ask(client: AsyncClient, prompts: Prompts, *, at_once: int) -> list[tuple[int, ...]]:
    """The router's answers, in the order of the prompts."""
    room = asyncio.Semaphore(at_once)

    async def ask(prompt: tuple[int, ...]) -> tuple[int, ...]:
        async with room:
            stream = client.generate(
                token_ids=prompt, max_tokens=MAX_TOKENS, temperature=0, ignore_eos=True
            )
            return (await stream.collect()).token_ids

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(prompt)) for prompt in prompts]
    return [each.result() for each in asked]


def _decode_workers(cluster: UpProcess) -> list[WorkerAddress]:
    return [worker for worker in cluster.workers if worker.role == "decode"]


def _handed_over(prompts: Prompts) -> int:
    return sum(len(prompt) >= HANDOVER_TOKENS_MIN for prompt in prompts)


@pytest.mark.parametrize(
    ("prompts", "at_once"),
    [pytest.param(ONE_BY_ONE, 1, id="one by one"), pytest.param(TOGETHER, AT_ONCE, id="together")],
)
async def test_disaggregated_output_is_that_of_one_engine(
    cluster: UpProcess,
    alone: dict[tuple[int, ...], list[int]],
    prompts: Prompts,
    at_once: int,
) -> None:
    """24 prompts of 1 to 1,500 tokens, greedy, float32: the same tokens, and one pull each.

    Counted by the decode engines' connectors and by vLLM's own NIXL metrics. Prompts below the
    threshold are computed where they are decoded, without a pull.
    """
    wait_all_joined(cluster)
    workers = _decode_workers(cluster)
    before, before_nixl = transfers(workers), nixl_transfers(workers)
    failures = nixl_failures(workers)
    async with AsyncClient(cluster.grpc) as client:
        answers = await _ask(client, prompts, at_once=at_once)
    assert len(prompts) >= 20
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer) == alone[prompt], f"prompt of {len(prompt)} tokens"

    pulled = _handed_over(prompts)
    assert 0 < len(prompts) - pulled < pulled
    assert transfers(workers) == before + pulled
    wait_until(
        lambda: nixl_transfers(workers) >= before_nixl + pulled, 5, what="vLLM has counted them"
    )
    assert nixl_transfers(workers) == before_nixl + pulled
    assert nixl_failures(workers) == failures
    wait_all_free(cluster.workers, 5)


async def test_a_prompt_that_the_engines_have_cached_gets_the_same_output(
    cluster: UpProcess, alone: dict[tuple[int, ...], list[int]]
) -> None:
    """Sent four times, at once: with and without the prefix in either engine's cache."""
    prompts = AGAIN * 4
    async with AsyncClient(cluster.grpc) as client:
        answers = await _ask(client, prompts, at_once=AT_ONCE)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert list(answer) == alone[prompt], f"prompt of {len(prompt)} tokens"


def test_a_wrong_block_anywhere_would_be_seen(alone: dict[tuple[int, ...], list[int]]) -> None:
    """The comparisons above have teeth: every block of a long prompt shows in the output."""
    assert all(alone[damaged] != alone[SOUND] for damaged in DAMAGED)


def test_explain_names_the_workers_of_a_request(cluster: UpProcess) -> None:
    """What the counters say in sum, the router says of one request."""
    wait_all_joined(cluster)
    placed = []
    with Client(cluster.grpc) as client:
        for prompt in _prompts("explained", (HANDOVER_TOKENS_MIN, HANDOVER_TOKENS_MIN - 1)):
            answer = client.generate(token_ids=prompt, max_tokens=4).collect()
            decisions = client.explain(answer.request_id).decisions
            placed.append({d.kind: d.worker_id.split("-")[0] for d in decisions if d.worker_id})
    assert (placed[0]["prefill"], placed[0]["decode"]) == ("prefill", "decode")
    assert placed[1] == {"decode": "decode"}
