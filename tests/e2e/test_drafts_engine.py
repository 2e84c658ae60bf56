"""Speculation in real engines: greedy text is the same, whatever is drafted and cut."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from drafting_engine import drafted_answers
from reference_engine import reference_answers
from tokenizers import Tokenizer
from up_process import up_process
from worker_inspection import wait_all_free, wait_all_joined

from readahead.cli.up import tiny_model
from readahead.cli.up.tiny_model import TinyModel, ensure
from readahead.client import AsyncClient

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TOKENS = 32
PROMPTS = 16


def prompts_of(model: Path) -> list[list[int]]:
    """Pieces of the text that the model's words come from, so that some of it comes again.

    Three are one token longer than a block: once that is cached, a first iteration computes one
    token, and vLLM fills it up with drafts that nobody made.
    """
    text = Path(tiny_model.__file__).with_name("tiny_corpus.txt").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    pieces = [ids[97 * index : 97 * index + 20 + 13 * index] for index in range(PROMPTS - 3)]
    return pieces + [ids[-129:]] * 3


def ask(folder: Path, *, draft: bool, is_async: bool) -> dict[str, Any]:
    model = ensure(TinyModel(), os.environ)
    question = {
        "model": str(model),
        "draft": str(ensure(TinyModel(layers=1), os.environ)) if draft else "",
        "is_async": is_async,
        "prompts": prompts_of(model),
        "max_tokens": TOKENS,
    }
    return drafted_answers(question, folder=folder)


def check(found: dict[str, Any], *, is_async: bool) -> None:
    assert found["async"] == is_async
    assert all(len(answer) == TOKENS for answer in found["plain"])
    for way in ("whole", "adaptive", "wild"):
        assert found[way]["answers"] == found["plain"], way
        counts = found[way]["counts"]
        assert 0 < counts["accepted"] < counts["verified"], way
        assert counts["failures"] == 0
    cut = found["wild"]["counts"]
    assert cut["verified"] < cut["offered"]
    assert found["known"] == 0  # whoever has ended is forgotten


def test_text_is_the_same_with_ngram_drafts(tmp_path: Path) -> None:
    """16 greedy requests in float32, at once; drafts whole, by the planner, cut at random.

    The last under a policy that holds, preempts and re-orders at random too.
    """
    check(ask(tmp_path, draft=False, is_async=False), is_async=False)


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_text_is_the_same_with_a_model_that_drafts(tmp_path: Path, is_async: bool) -> None:
    """The same with a model of one layer; asynchronous scheduling forced on as well as off."""
    check(ask(tmp_path, draft=True, is_async=is_async), is_async=is_async)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ngram", "draft_model"])
async def test_text_is_the_same_after_a_handover(tmp_path: Path, method: str) -> None:
    """Through two pools that both speculate, switched on by the environment alone."""
    environ = {"READAHEAD_WORKER__ENGINE__SPECULATION__METHOD": method}
    if method == "draft_model":
        draft = ensure(TinyModel(layers=1), os.environ)
        environ["READAHEAD_WORKER__ENGINE__SPECULATION__MODEL_PATH"] = str(draft)
    model = ensure(TinyModel(), os.environ)
    prompts = prompts_of(model)
    with up_process(tmp_path / "up", "--decode", "1", environ=environ) as up:
        wait_all_joined(up.wait_ready())
        async with AsyncClient(up.grpc) as client:

            async def ask(prompt: list[int]) -> list[int]:
                stream = client.generate(
                    token_ids=prompt, max_tokens=TOKENS, temperature=0, ignore_eos=True
                )
                return list((await stream.collect()).token_ids)

            answers = await asyncio.gather(*(ask(prompt) for prompt in prompts))
        wait_all_free(up.workers, 10)
    alone = reference_answers(model, prompts, max_tokens=TOKENS, folder=tmp_path)
    assert answers == alone
