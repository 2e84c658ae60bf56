"""What the scheduler's tests have a stepped engine do; each runs in the engine's process."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from stepped_engine import SteppedEngine

from readahead.core.planning.policy import Choice, EngineView
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.vllm_scheduler_sequences import leg_facts
from readahead.services.engine.vllm_slack import ReaderNews, SlackBoard, SlackView

Answers = dict[str, list[int]]


@dataclass(slots=True)
class Wild:
    """Asks for anything that the contract of `Choice` allows, sensible or not."""

    rng: random.Random
    name: str = "wild"

    def choose(self, view: EngineView, now: float) -> Choice:
        del now
        rng = self.rng
        everybody = [*view.running, *view.waiting]
        rng.shuffle(everybody)
        chosen = [s for s in everybody if rng.random() < 0.7]
        victims = list(view.running)
        rng.shuffle(victims)
        preempt = [s for s in view.running if rng.random() < 0.02]
        return Choice(
            entries=[(s, rng.randint(1, s.missing)) for s in chosen],
            victims=victims,
            preempt=preempt,
            holds_for=rng.choice([1, 5, 1000]),
        )


@dataclass(slots=True)
class Broken:
    """Raises each third time, and lets everybody run otherwise."""

    name: str = "broken"
    asked: int = 0
    raised: int = field(default=0)

    def choose(self, view: EngineView, now: float) -> Choice:
        del now
        self.asked += 1
        if self.asked % 3 == 0:
            self.raised += 1
            raise ZeroDivisionError("a test said so")
        return Choice(entries=[(s, s.missing) for s in (*view.running, *view.waiting)], holds_for=1)


def counts(engine: SteppedEngine) -> dict[str, float]:
    """What the scheduler has counted since its start."""
    count = engine.scheduler.count
    return {name: getattr(count, name) for name in type(count).__slots__}


def solo(engine: SteppedEngine, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """Each alone, in vLLM's own order."""
    engine.scheduler.select("vllm", {})
    for index, prompt in enumerate(prompts):
        engine.add(f"solo-{index}", prompt, tokens=tokens)
        engine.finish()
    answers = engine.take()
    return [answers[f"solo-{index}"] for index in range(len(prompts))]


def together(
    engine: SteppedEngine,
    prompts: list[list[int]],
    *,
    tokens: int,
    policies: list[str],
    seed: int,
    aborts: int = 0,
) -> tuple[dict[int, list[int]], dict[str, float], tuple[int, int, int]]:
    """All at random times, by readers of all kinds, under policies that change at random.

    Returns the answers of those that were not aborted, the counts, and what is left at the end.
    """
    rng = random.Random(seed)
    before = counts(engine)
    scheduler = engine.scheduler
    pending = list(enumerate(prompts))
    doomed = {index: rng.randint(0, 20) for index in rng.sample(range(len(prompts)), aborts)}
    steps = 0
    _choose(scheduler, policies[0], rng)
    while pending or engine.is_busy:
        while pending and rng.random() < 0.5:
            index, prompt = pending.pop(0)
            engine.add(f"r-{index}", prompt, tokens=tokens, facts=_reader(rng))
        engine.step()
        steps += 1
        assert steps < 5000, "stuck"
        if rng.random() < 0.2:
            _choose(scheduler, rng.choice(policies), rng)
        for index in [i for i, at in doomed.items() if steps >= at and f"r-{i}" in engine._seen]:
            engine.abort(f"r-{index}")
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    after = counts(engine)
    return answers, {name: after[name] - before[name] for name in after}, engine.left()


def first_token(engine: SteppedEngine, policy: str) -> tuple[int, dict[str, float]]:
    """Iterations to a prompt's first token while readers rich in unread text decode; the counts."""
    scheduler = engine.scheduler
    tokens_max, limits = scheduler.max_num_scheduled_tokens, scheduler._limits
    scheduler.max_num_scheduled_tokens = 48
    scheduler._limits = scheduler._make_limits()
    before = counts(engine)
    try:
        scheduler.select("vllm", {})
        rng = random.Random(3)
        for index in range(24):
            prompt = [rng.randrange(5, 2000) for _ in range(20)]
            engine.add(f"rich-{index}", prompt, tokens=100, facts={"pace_tok_s": 1.0})
        for _ in range(40):
            engine.step()
        scheduler.select(policy, {})
        started = engine.iterations
        engine.add("prompt", [rng.randrange(5, 2000) for _ in range(480)], tokens=3)
        engine.finish()
        took = engine.first_at.pop("prompt") - started
        assert len(engine.take()) == 25
    finally:
        scheduler.max_num_scheduled_tokens, scheduler._limits = tokens_max, limits
    after = counts(engine)
    return took, {name: after[name] - before[name] for name in after}


def broken(
    engine: SteppedEngine, prompts: list[list[int]], tokens: int
) -> tuple[dict[int, list[int]], dict[str, float], int, str]:
    """Under a planner that raises; the answers, the counts, how often it raised, the error kept."""
    before = counts(engine)
    policy = Broken()
    engine.scheduler.select("sarathi", {})
    engine.scheduler._policy = policy
    for index, prompt in enumerate(prompts):
        engine.add(f"b-{index}", prompt, tokens=tokens)
    engine.finish()
    engine.scheduler.select("vllm", {})
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    after = counts(engine)
    diff = {name: after[name] - before[name] for name in after}
    return answers, diff, policy.raised, engine.scheduler.last_error


def overrun(
    engine: SteppedEngine, prompts: list[list[int]], tokens: int
) -> tuple[dict[int, list[int]], dict[str, float]]:
    """Under a planner that no budget is enough for; the answers and the counts."""
    before, scheduler = counts(engine), engine.scheduler
    budget_s, scheduler._planner_budget_s = scheduler._planner_budget_s, 0.0
    try:
        scheduler.select("readahead", {})
        for index, prompt in enumerate(prompts):
            engine.add(f"o-{index}", prompt, tokens=tokens)
        engine.finish()
    finally:
        scheduler._planner_budget_s = budget_s
        scheduler.select("vllm", {})
    answers = {int(name.split("-")[1]): ids for name, ids in engine.take().items()}
    after = counts(engine)
    return answers, {name: after[name] - before[name] for name in after}


def heard(engine: SteppedEngine) -> tuple[list[float], list[float], str, int]:
    """What the core believes of a reader before and after news of him: pace, seconds of slack.

    Then the policy and the iterations that its report tells.
    """
    board = SlackBoard(4)
    scheduler, started = engine.scheduler, engine.iterations
    scheduler._board = SlackView(board.path)
    slot = board.open_slot()
    assert slot is not None
    try:
        scheduler.select("readahead", {"rich_s": 1.0})
        now = monotonic_s()
        facts = leg_facts(pace_tok_s=2.0, arrived_at=now, slot=slot)
        engine.add("heard", [7, 8, 9], tokens=60, facts=facts)
        for _ in range(40):
            engine.step()
        before = _belief(engine, now)
        board.write(ReaderNews(slot=slot, pace_tok_s=8.0, tokens_read=-1, at_s=now))
        engine.add("other", [7, 8, 9], tokens=3)  # so that a plan is made
        engine.step()
        after = _belief(engine, now)
        engine.finish()
        engine.take()
        report = board.report()
        return before, after, report.policy, report.iterations - started
    finally:
        scheduler._board.close()
        scheduler._board = None
        board.close()
        scheduler.select("vllm", {})


def _belief(engine: SteppedEngine, now: float) -> list[float]:
    scheduler = engine.scheduler
    [sequence] = [s for r, s in scheduler._sequences._of.items() if "heard" in r.request_id]
    return [sequence.pace_tok_s, sequence.slack_s(now)]


def refused(engine: SteppedEngine) -> tuple[str, str, str]:
    """What the utility call says to a policy that there is, to one that there is not, to a knob."""
    core = engine.llm.engine_core.engine_core
    said = (
        core.readahead_policy("sarathi", {"chunk_tokens": 64}),
        core.readahead_policy("nonsense", {}),
        core.readahead_policy("sarathi", {"nonsense": 1}),
    )
    assert engine.scheduler._policy.chunk_tokens == 64  # the refused ones changed nothing
    core.readahead_policy("vllm", {})
    return said


def _choose(scheduler: Any, policy: str, rng: random.Random) -> None:
    if policy == "wild":
        scheduler.select("sarathi", {})
        scheduler._policy = Wild(rng)
    else:
        scheduler.select(policy, {})


def _reader(rng: random.Random) -> dict[str, float]:
    """Late, early, quick and slow ones."""
    return {
        "pace_tok_s": rng.choice([0.5, 5.0, 50.0, 500.0]),
        "arrived_at": monotonic_s() - rng.choice([0.0, 0.1, 5.0, 100.0]),
    }
