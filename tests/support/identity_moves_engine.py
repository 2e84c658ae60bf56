"""What the test of all moves at once has a stepped engine do; each runs in the engine's process."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drafting_engine import DRAFT_TOKENS_MAX, WildPlanner
from parking_scenarios import any_reader, choose_policy, nothing_left
from scheduler_scenarios import counts
from stepped_engine import SteppedEngine

from readahead.core.planning.drafts import DraftPlanner

CHUNK_TOKENS = 64
STEPS_MAX = 40


@dataclass(frozen=True, slots=True)
class Order:
    """One of the functions of `_ORDERS`, and what it is given."""

    at: int
    """Which engine carries it out."""
    what: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Of an engine, after some orders and some iterations."""

    replies: list[Any]
    """To the orders."""
    tokens: dict[str, list[int]]
    """What each leg has made that goes on, or has ended since the last news."""
    ended: set[str]
    handovers: dict[str, dict[str, Any]]
    """Of prefill legs that have ended."""
    settled: set[str]
    """Parked legs of which no token is under way."""
    chunks: int
    """Prompts that were left unfinished, summed over the iterations."""


def turn(engine: SteppedEngine, orders: Sequence[Order], steps: int) -> News:
    """Carries orders out, between two iterations, and runs some."""
    replies = [_ORDERS[order.what](engine, *order.arguments) for order in orders]
    chunks = 0
    for _ in range(steps):
        engine.step()
        chunks += sum([request.is_prefill_chunk for request in engine.scheduler.running])
    ended = engine.take()
    handovers, engine.handovers = engine.handovers, {}
    parked = _core(engine).readahead_parked()
    return News(
        replies=replies,
        tokens={name: list(ids) for name, ids in engine._seen.items()} | ended,
        ended=set(ended),
        handovers=handovers,
        settled={name for name, leg in parked.items() if not leg["in_flight_tokens"]},
        chunks=chunks,
    )


def totals(engine: SteppedEngine) -> dict[str, float]:
    """What the engine has counted since its start."""
    core = _core(engine)
    drafts = {f"drafts_{name}": count for name, count in core.readahead_drafts().items()}
    return {**counts(engine), **drafts, **core.readahead_inspect()}


def left(engine: SteppedEngine) -> dict[str, int]:
    """What is not free, in vLLM's own order; all zeros once all have ended."""
    engine.scheduler.select("vllm", {})
    return nothing_left(engine)


def _add(
    engine: SteppedEngine,
    name: str,
    prompt: list[int],
    tokens: int,
    transfer: dict[str, Any] | None,
    seed: int,
) -> None:
    facts = any_reader(random.Random(seed))
    engine.add(name, prompt, tokens=tokens, facts=facts, transfer=transfer)


def _park(engine: SteppedEngine, name: str) -> tuple[str, bool]:
    """Why not, "" if parked; and whether it had drafts that were not verified."""
    has_drafts = _has_drafts(engine, name)
    reason: str = _core(engine).readahead_park([name])[name]
    return reason, has_drafts


def _offer(engine: SteppedEngine, name: str) -> tuple[dict[str, Any], bool]:
    """As an engine does that is asked to let a leg go, whoever has parked it before."""
    has_drafts = _has_drafts(engine, name)
    core = _core(engine)
    core.readahead_park([name])
    params: dict[str, Any] = core.readahead_offer(name)
    return params, has_drafts


def _resume(engine: SteppedEngine, name: str) -> bool:
    """Whether it was still parked."""
    return not _core(engine).readahead_resume([name])


def _leave(engine: SteppedEngine, name: str) -> None:
    """A leg is over here, and whatever was kept of it for others."""
    engine.abort(name)
    _core(engine).readahead_release([name])


def _cut(engine: SteppedEngine, seed: int) -> None:
    """Drafts from now on are cut by the planner, at random, or not at all."""
    rng = random.Random(seed)
    engine.scheduler.draft_planner = rng.choice([
        None, WildPlanner(seed), DraftPlanner(draft_tokens_max=DRAFT_TOKENS_MAX),
    ])  # fmt: skip


def _plan(engine: SteppedEngine, seed: int) -> None:
    """Iterations from now on are planned in some other way."""
    choose_policy(engine, random.Random(seed))


_ORDERS: Mapping[str, Callable[..., Any]] = {
    "add": _add,
    "park": _park,
    "offer": _offer,
    "resume": _resume,
    "leave": _leave,
    "cut": _cut,
    "plan": _plan,
}


def _core(engine: SteppedEngine) -> Any:
    return engine.llm.engine_core.engine_core


def _request(engine: SteppedEngine, name: str) -> Any:
    scheduler = engine.scheduler
    return scheduler.requests.get(scheduler.engine_id_of(name))


def _has_drafts(engine: SteppedEngine, name: str) -> bool:
    """Drafted tokens that nobody has verified; under way, where scheduling is asynchronous."""
    request = _request(engine, name)
    if request is None:
        return False
    if engine.scheduler.scheduler_config.async_scheduling:
        return bool(request.num_output_placeholders > 1)
    return bool(request.spec_token_ids)


def steps_to_first_token(engine: SteppedEngine, prompt: list[int]) -> int:
    """Iterations to the first token of a prompt all but one token of which is cached, alone."""
    scheduler = engine.scheduler
    scheduler.select("sarathi", {})
    engine.add("computed", prompt, tokens=1)
    engine.finish()
    began = engine.iterations
    engine.add("cached", prompt, tokens=2)
    engine.finish(steps_max=STEPS_MAX)
    scheduler.select("vllm", {})
    engine.take()
    return engine.first_at.pop("cached") - began


def steps_to_come_back(engine: SteppedEngine, prompts: Sequence[list[int]]) -> tuple[int, int]:
    """Iterations from a reader's resume to his next token, and to the end of a prompt that is
    computed meanwhile, beside others who decode with all their drafts."""
    scheduler, core = engine.scheduler, _core(engine)
    scheduler.draft_planner = None
    scheduler.select("sarathi", {"chunk_tokens": CHUNK_TOKENS})
    *readers, long_prompt = prompts
    for index, prompt in enumerate(readers):
        engine.add(f"reader-{index}", prompt, tokens=400)
    for _ in range(STEPS_MAX):
        engine.step()
    assert core.readahead_park(["reader-0"]) == {"reader-0": ""}
    engine.add("long", long_prompt, tokens=1)
    for _ in range(3):
        engine.step()
    made, began = len(engine._seen["reader-0"]), engine.iterations
    assert core.readahead_resume(["reader-0"]) == []
    back = 0
    while "long" not in engine.first_at:
        engine.step()
        if not back and len(engine._seen["reader-0"]) > made:
            back = engine.iterations - began
    long = engine.first_at.pop("long") - began
    for name in list(engine._seen):
        engine.abort(name)
    scheduler.select("vllm", {})
    engine.finish()
    engine.take()
    return back, long
