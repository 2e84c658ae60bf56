"""Laws of parking by plan inside real engines, asynchronous scheduling off and on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import parking_scenarios as scenarios
import pytest
from stepped_engine import RemoteEngine, prompts_of, stepped_engine

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore"),  # vLLM's and torch's own
]

PROMPTS = prompts_of(52, seed=5, most=300)
TOKENS = [20 + index % 40 for index in range(len(PROMPTS))]
CLEAN = {"sequences": 0, "queued": 0, "blocks": 0, "parked": 0, "host_copies": 0}


@dataclass(frozen=True, slots=True)
class Stepped:
    engine: RemoteEngine
    solo: list[list[int]]
    """What each of PROMPTS brings alone, unmoved."""


@pytest.fixture(scope="module", params=[False, True], ids=["sync", "async"])
def stepped(request: pytest.FixtureRequest) -> Iterator[Stepped]:
    with stepped_engine(is_async=request.param, parks=True) as engine:
        yield Stepped(engine, engine.do(scenarios.one_by_one, PROMPTS, tokens=TOKENS))


def test_planned_parks_leave_every_text_as_it_was(stepped: Stepped) -> None:
    """52 readers at once, in memory for a dozen, under a policy that parks by itself."""
    answers, counts, left = stepped.engine.do(
        scenarios.planned, PROMPTS, tokens=TOKENS, knobs=scenarios.PLANNED
    )
    assert answers == dict(enumerate(stepped.solo))
    assert counts["parks"] >= 10
    assert counts["failures"] == counts["overruns"] == counts["parks_refused"] == 0
    assert left == CLEAN


@pytest.mark.parametrize("seed", range(3))
def test_random_parks_leave_every_text_as_it_was(stepped: Stepped, seed: int) -> None:
    """By plans sensible and wild, by commands, in between changes of policy, chunk and batch."""
    answers, counts, left = stepped.engine.do(
        scenarios.moved, PROMPTS, tokens=TOKENS, seed=seed, aborts=2
    )
    assert len(answers) >= len(PROMPTS) - 2
    assert answers == {index: stepped.solo[index] for index in answers}
    assert counts["parks"] >= 10
    assert counts["resumes"] >= 10
    assert counts["failures"] == 0
    assert left == CLEAN


@pytest.mark.parametrize("what", ["abort", "switch", "fail", "overrun", "command"])
def test_whatever_happens_to_those_who_are_parked(stepped: Stepped, what: str) -> None:
    """Aborted, under another policy, without a planner, with one too slow, taken over by a command:
    they are served or gone, and nothing of them stays."""
    parked, answers, left = stepped.engine.do(scenarios.parked_then, PROMPTS, what)
    assert parked >= 3
    assert len(answers) == len(PROMPTS) - (parked if what == "abort" else 0)
    for index, answer in answers.items():
        both = min(len(answer), TOKENS[index])
        assert len(answer) == 40
        assert answer[:both] == stepped.solo[index][:both]
    assert left == CLEAN
