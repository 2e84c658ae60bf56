"""Greedy text is that of one plain engine, whatever is done to it, all at once.

Requests are handed over, parked by plans and by commands, resumed, taken to the other engine while
they run or while they are parked, taken back; meanwhile batches, chunks and drafts change at
random. Real engines in float32, asynchronous scheduling off and on; `identity_moves` has the plan.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from identity_moves import travel
from identity_moves_engine import left, steps_to_come_back, steps_to_first_token
from reference_engine import reference_answers
from stepped_engine import RemoteEngine, stepped_engines
from tokenizers import Tokenizer
from waiting import wait_until

from readahead.cli.up import tiny_model
from readahead.cli.up.tiny_model import TinyModel, ensure

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
]

REQUESTS = 52
TOKENS = [12 + index * 7 % 29 for index in range(REQUESTS)]
FLOORS = {
    "handovers": 20,
    "parks": 20,
    "resumes": 10,
    "migrations": 25,
    "offers_of_parked": 2,
    "taken_back": 2,
    "given_up": 2,
    "moves_with_drafts": 5,
    "chunks": 50,
    "engines_parks": 8,
    "engines_resumes": 6,
    "engines_held_requests": 50,
    "engines_transfers_total": 50,
    "engines_loaded_blocks": 30,
    "engines_drafts_accepted": 30,
}
"""So often at least has happened what the test is about. `engines_`: what the engines counted,
parks and resumes by plans only; the others are readers' own counts, of commands."""


class Pair(NamedTuple):
    engines: Sequence[RemoteEngine]
    prompts: Sequence[list[int]]
    alone: Sequence[Sequence[int]]
    """What each of the prompts brings in a plain engine, alone."""


def is_empty(engine: RemoteEngine) -> bool:
    """Once the other engine has said that it has what it pulled."""
    return not any(engine.do(left).values())


def prompts_of(model: Path) -> list[list[int]]:
    """Pieces of the text that the model's words come from, so that some drafts are right.

    Some are the same and one token longer than a block: once that is cached, a first iteration
    computes one token, and vLLM fills it up with drafts that nobody made.
    """
    text = Path(tiny_model.__file__).with_name("tiny_corpus.txt").read_text(encoding="utf-8")
    ids = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text).ids
    draw = random.Random(77)
    prompts = []
    for index in range(REQUESTS):
        length = draw.randrange(3, 300)
        begin = draw.randrange(len(ids) - length)
        prompts.append(ids[-129:] if index % 9 == 4 else ids[begin : begin + length])
    return prompts


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    return prompts_of(ensure(TinyModel(), os.environ))


@pytest.fixture(scope="module")
def alone(
    prompts: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> Sequence[Sequence[int]]:
    folder, model = tmp_path_factory.mktemp("alone"), ensure(TinyModel(), os.environ)
    answers = reference_answers(model, prompts, max_tokens=max(TOKENS), folder=folder)
    return [answer[:tokens] for answer, tokens in zip(answers, TOKENS, strict=True)]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((False, False), id="sync-ngram"),
        pytest.param((True, True), id="async-model"),
        pytest.param((False, True), id="sync-model", marks=pytest.mark.slow),
    ],
)
def pair(
    request: pytest.FixtureRequest, prompts: list[list[int]], alone: Sequence[Sequence[int]]
) -> Iterator[Pair]:
    is_async, has_model = request.param
    drafts = str(ensure(TinyModel(layers=1), os.environ)) if has_model else ""
    with stepped_engines(2, is_async=is_async, parks=True, drafts=drafts) as engines:
        yield Pair(engines, prompts, alone)


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))])
def test_text_is_the_same_through_all_moves_at_once(pair: Pair, seed: int) -> None:
    """52 requests, each token by token; and nothing of them is left anywhere."""
    answers, tally = travel(pair.engines, pair.prompts, tokens=TOKENS, seed=seed)
    print(f"{len(answers)} requests, seed {seed}: {tally}")
    for index, (answer, solo) in enumerate(zip(answers, pair.alone, strict=True)):
        assert answer == solo, f"request {index} of {len(pair.prompts[index])} tokens"
    assert {name: tally.get(name, 0) for name in FLOORS if tally.get(name, 0) < FLOORS[name]} == {}
    assert tally["engines_failures"] == tally["engines_drafts_failures"] == 0
    for engine in pair.engines:
        wait_until(partial(is_empty, engine), 5, what="nothing is left")


def test_prompt_that_lacks_one_token_is_let_in(pair: Pair) -> None:
    """vLLM fills its first iteration up with drafts, for which the plan must leave room."""
    [engine, _] = pair.engines
    assert engine.do(steps_to_first_token, pair.prompts[4]) <= 3


def test_whoever_comes_back_does_not_wait_for_a_prompt(pair: Pair) -> None:
    """He is served beside it, though vLLM serves it before those whose KV has come."""
    [engine, _] = pair.engines
    draw = random.Random(78)
    prompts = [[draw.randrange(5, 2000) for _ in range(n)] for n in (40, 50, 60, 70, 1200)]
    back, long = engine.do(steps_to_come_back, prompts)
    assert long >= 15
    assert 0 < back <= 5
