"""What the tests of parking have a stepped engine do; each runs in the engine's process."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler_scenarios import Wild, counts
from stepped_engine import SteppedEngine

from readahead.core.planning.policy import Choice, EngineView, Park
from readahead.runtime.clock import monotonic_s

PLANNED = {"park": 1, "park_margin_s": 0.1, "park_dwell_s": 0.05, "park_load": 1, "rich_s": 0.2}
"""Knobs with which the policy `readahead` parks whenever it can."""


@dataclass(slots=True)
class WildParking(Wild):
    """Parks and resumes at random too, with copies and without."""

    name: str = "wild-parking"
    asked: list[int] = field(default_factory=lambda: [0, 0])

    def choose(self, view: EngineView, now: float) -> Choice:
        rng = self.rng
        choice = Wild.choose(self, view, now)
        park = [Park(s, rng.random() < 0.8) for s in view.running if rng.random() < 0.1]
        resume = [s for s in view.parked if rng.random() < 0.1 or not view.running]
        self.asked[0] += len(park)
        self.asked[1] += len(resume)
        return replace(choice, park=park, resume=resume, holds_for=1)


def moved(
    engine: SteppedEngine,
    prompts: list[list[int]],
    *,
    tokens: list[int],
    seed: int,
    aborts: int = 0,
) -> tuple[dict[int, list[int]], dict[str, float], dict[str, int]]:
    """All at random times, parked and resumed by plans of two kinds and by commands.

    Returns the answers of those that were not aborted, the counts, and what is left at the end.
    """
    rng = random.Random(seed)
    core, before = engine.llm.engine_core.engine_core, counts(engine)
    pending = list(enumerate(prompts))
    doomed = {index: rng.randint(0, 40) for index in rng.sample(range(len(prompts)), aborts)}
    ours: set[str] = set()
    """Parked by commands."""
    steps = 0
    choose_policy(engine, rng)
    while pending or engine.is_busy:
        while pending and rng.random() < 0.8:
            index, prompt = pending.pop(0)
            engine.add(f"m-{index}", prompt, tokens=tokens[index], facts=any_reader(rng))
        engine.step()
        steps += 1
        assert steps < 8000, f"stuck: {core.readahead_parked()}"
        if rng.random() < 0.2:
            choose_policy(engine, rng)
        if engine._seen and rng.random() < 0.2:
            name = rng.choice(list(engine._seen))
            if core.readahead_park([name])[name] == "":
                ours.add(name)
        if ours and (rng.random() < 0.2 or not engine.scheduler.running):
            name = rng.choice(sorted(ours))
            ours.discard(name)
            core.readahead_resume([name])
        for index in [i for i, at in doomed.items() if steps >= at and f"m-{i}" in engine._seen]:
            engine.abort(f"m-{index}")
    _settle(engine)
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    after = counts(engine)
    return answers, {name: after[name] - before[name] for name in after}, nothing_left(engine)


def planned(
    engine: SteppedEngine, prompts: list[list[int]], *, tokens: list[int], knobs: dict[str, float]
) -> tuple[dict[int, list[int]], dict[str, float], dict[str, int]]:
    """All at once under the policy `readahead`, which parks by itself; results as of `moved`."""
    before = counts(engine)
    engine.scheduler.select("readahead", knobs)
    for index, prompt in enumerate(prompts):
        engine.add(f"p-{index}", prompt, tokens=tokens[index], facts={"pace_tok_s": 5.0})
    engine.finish()
    _settle(engine)
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    after = counts(engine)
    return answers, {name: after[name] - before[name] for name in after}, nothing_left(engine)


def one_by_one(
    engine: SteppedEngine, prompts: list[list[int]], *, tokens: list[int]
) -> list[list[int]]:
    """Each alone, in vLLM's own order, unmoved."""
    engine.scheduler.select("vllm", {})
    for index, prompt in enumerate(prompts):
        engine.add(f"solo-{index}", prompt, tokens=tokens[index])
        engine.finish()
    answers = engine.take()
    return [answers[f"solo-{index}"] for index in range(len(prompts))]


def parked_then(
    engine: SteppedEngine, prompts: list[list[int]], what: str
) -> tuple[int, dict[int, list[int]], dict[str, int]]:
    """Has plans park some of those who decode, and then something happen to them.

    Returns how many were parked, all answers, and what is left at the end.
    """
    scheduler = engine.scheduler
    core = engine.llm.engine_core.engine_core
    scheduler.select("readahead", PLANNED)
    for index, prompt in enumerate(prompts):
        engine.add(f"t-{index}", prompt, tokens=40, facts={"pace_tok_s": 5.0})
    for _ in range(2000):
        engine.step()
        if len(scheduler.parked_by_plan) >= 3:
            break
    parked = len(scheduler.parked_by_plan)
    names = [each for each in core.readahead_parked() if each in engine._seen]
    if what == "abort":
        for name in names:
            engine.abort(name)
    elif what == "switch":
        scheduler.select("sarathi", {})
        assert not scheduler.parked_by_plan
    elif what == "fail":
        scheduler._policy = _Raises()
        engine.step()
        assert not scheduler.parked_by_plan
    elif what == "overrun":
        scheduler._planner_budget_s = 0.0
    elif what == "command":
        assert core.readahead_park(names) == dict.fromkeys(names, "")
        assert not scheduler.parked_by_plan
        for _ in range(4000):
            if not scheduler.has_requests():
                break
            engine.step()
        assert sorted(core.readahead_parked()) == sorted(names)
        assert not scheduler.has_requests()
        assert core.readahead_resume(names) == []
    try:
        engine.finish()
    finally:
        scheduler._planner_budget_s = 10.0
        scheduler.select("vllm", {})
    _settle(engine)
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    return parked, answers, nothing_left(engine)


def nothing_left(engine: SteppedEngine) -> dict[str, int]:
    """What is not free; all zeros once all have ended."""
    sequences, queued, blocks = engine.left()
    core = engine.llm.engine_core.engine_core
    return {
        "sequences": sequences,
        "queued": queued,
        "blocks": blocks,
        "parked": len(core.readahead_parked()),
        "host_copies": core.readahead_inspect()["host_copies"],
    }


class _Raises:
    name = "raises"

    def choose(self, view: EngineView, now: float) -> Choice:
        raise ZeroDivisionError("a test said so")


def _settle(engine: SteppedEngine) -> None:
    """Copies of requests that have ended go with the next step's orders."""
    for _ in range(3):
        engine.llm.engine_core.engine_core.step_fn()


def choose_policy(engine: SteppedEngine, rng: random.Random) -> None:
    """Any policy, sensible or not, with chunks of any length."""
    scheduler = engine.scheduler
    kind = rng.choice(["wild", "wild", "planned", "planned", "vllm", "sarathi"])
    if kind == "wild":
        scheduler.select("sarathi", {})
        scheduler._policy = WildParking(rng)
    elif kind == "planned":
        chunk = rng.choice([16, 64, 1024])
        scheduler.select("readahead", {**PLANNED, "cap_tokens": chunk})
    else:
        scheduler.select(kind, {})


def any_reader(rng: random.Random) -> dict[str, Any]:
    """Late, early, quick and slow ones."""
    return {
        "pace_tok_s": rng.choice([0.5, 2.0, 5.0, 50.0]),
        "arrived_at": monotonic_s() - rng.choice([0.0, 0.1, 5.0]),
    }
