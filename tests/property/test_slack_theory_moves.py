"""Batches, parking and moves, as docs/explanation/slack.md states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_rounds import LIMITS, Rounds, sequence

from readahead.core.cluster import Role, WorkerDescription, WorkerLoad, WorkerView
from readahead.core.config import MigrationConfig
from readahead.core.latency.iteration import (
    IterationWork,
    LatencyModel,
    LatencyPlane,
    iteration_s,
)
from readahead.core.placement.decoder import Decoder
from readahead.core.placement.forecast import idle_ahead_s
from readahead.core.placement.migration import MigrationPolicy
from readahead.core.placement.triggers import Move
from readahead.core.planning.policies.registry import make_policy
from readahead.core.reading.clock import ReadingClock
from readahead.core.request import Incarnation, RequestId, RequestView, WorkerId

NOW = 100.0
EPSILON_S = 1e-9
Phases = Sequence[tuple[float, float]]
"""One after the other: seconds, and tokens made per second."""

PLANES = st.builds(
    LatencyPlane,
    token_s=st.floats(0, 1e-3),
    request_s=st.floats(0, 1e-3),
    past_token_s=st.floats(0, 1e-6),
    base_s=st.floats(0, 0.1),
)


@given(
    st.lists(PLANES, min_size=1, max_size=4),
    st.integers(0, 200),
    st.lists(st.integers(1, 4000), min_size=2, max_size=2).map(sorted),
)
def test_longer_iterations_make_tokens_cheaper(
    planes: list[LatencyPlane], decoding: int, tokens: list[int]
) -> None:
    """Seconds per token never rise with the tokens beside those who decode, attention and tiles
    left out: each plane is a base that is shared by more."""
    model = LatencyModel(name="drawn", planes=tuple(planes))
    fewer_s, more_s = [
        iteration_s(
            IterationWork(
                tokens=decoding + each,
                requests=decoding + 1,
                past_tokens=500 * decoding,
                prefill_pairs=0,
            ),
            model=model,
        )
        / (decoding + each)
        for each in tokens
    ]
    assert more_s <= fewer_s * (1 + 1e-12)


def waits_of_readers_with_text(policy: str, seed: int) -> tuple[int, float]:
    """Iterations that had prompts in them while somebody read, and how long those who had text
    left when such an iteration began then waited in it, seconds."""
    random = Random(f"prompts/{seed}")
    rounds = Rounds(policy, replace(LIMITS, kv_blocks=4000, requests_max=60, batch_tokens_max=2000))
    knobs = {"patience_s": 3600.0} if policy in ("slack", "readahead") else {}
    rounds.batch.policy = make_policy(policy, knobs)
    arrivals = sorted(random.uniform(0, 12) for _ in range(40))
    mixed, waited_s = 0, 0.0
    for _ in range(5000):
        while arrivals and arrivals[0] <= rounds.now:
            prompt, answer = random.randint(20, 400), random.randint(10, 40)
            at_s = arrivals.pop(0)
            rounds.arrive(
                sequence(100 + len(arrivals), prompt_tokens=prompt, output_tokens=answer, now=at_s)
            )
        if not rounds.alive():
            if not arrivals:
                break
            rounds.now = arrivals[0]
            continue
        before = {
            each: rounds.clocks[each].idle_s(rounds.now)
            for each in rounds.batch.running
            if each.missing == 1 and each.slack_s(rounds.now) > 0
        }
        plan = rounds.plan()
        has_prompt = any(each.missing > 1 or not each.generated for each, _ in plan.entries)
        rounds.carry_out(plan)
        if has_prompt and before:
            mixed += 1
            waited_s += sum(rounds.clocks[s].idle_s(rounds.now) - was for s, was in before.items())
        rounds.end_finished()
    else:
        raise AssertionError("not over")
    return mixed, waited_s


@pytest.mark.parametrize("policy", ["slack", "readahead"])
@pytest.mark.parametrize("seed", range(3))
def test_prompts_cost_nobody_who_has_text_left(policy: str, seed: int) -> None:
    """Neither those who are in the iteration nor those who sit it out."""
    mixed, waited_s = waits_of_readers_with_text(policy, seed)
    assert mixed > 20
    assert waited_s <= EPSILON_S


def test_whole_prompts_do() -> None:
    """The same people under a policy that does not look at them."""
    assert waits_of_readers_with_text("vllm", 0)[1] > 0.1


def reflected_s(slack_s: float, phases: Phases, *, pace_tok_s: float) -> float:
    """The identity for text that flows evenly: the most that time is ahead of text, looked at
    where the flow changes."""
    ends_s = accumulate((length_s for length_s, _ in phases), initial=0.0)
    made = accumulate((length_s * tok_s for length_s, tok_s in phases), initial=0.0)
    ahead_s = [
        end_s - max(0.0, slack_s) - tokens / pace_tok_s
        for end_s, tokens in zip(ends_s, made, strict=True)
    ]
    return max(0.0, *ahead_s)


def played_s(slack_s: float, phases: Phases, *, pace_tok_s: float) -> float:
    """How long a reader waits who gets each token once it is whole."""
    clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=max(0.0, slack_s) - 1 / pace_tok_s)
    begins_s, part = 0.0, 0.0
    for length_s, tok_s in phases:
        tokens = int(part + length_s * tok_s)
        for token in range(1, tokens + 1):
            clock.deliver(1, now=begins_s + (token - part) / tok_s)
        part += length_s * tok_s - tokens
        begins_s += length_s
    return clock.idle_s(begins_s)


PHASES = st.lists(
    st.tuples(st.floats(0, 8), st.just(0.0) | st.floats(0.5, 20)), min_size=1, max_size=4
)


@given(st.floats(-3, 20), PHASES, st.floats(0.5, 20))
def test_the_forecast_is_the_identity_ahead(
    slack_s: float, phases: Phases, pace_tok_s: float
) -> None:
    """And who gets whole tokens waits as long, or less than a token's reading time longer."""
    idle_s = idle_ahead_s(slack_s, phases, pace_tok_s=pace_tok_s)
    assert idle_s == pytest.approx(reflected_s(slack_s, phases, pace_tok_s=pace_tok_s), abs=1e-9)
    played = played_s(slack_s, phases, pace_tok_s=pace_tok_s)
    assert idle_s - 1e-6 <= played <= idle_s + 1 / pace_tok_s + 1e-6


@given(
    slack_s=st.floats(0, 3),
    copy_s=st.floats(0, 3),
    downtime_s=st.floats(0, 3),
    pace_tok_s=st.floats(0.5, 20),
    speed=st.lists(st.floats(1, 8), min_size=2, max_size=2),
)
def test_a_move_costs_what_the_text_does_not_cover(
    slack_s: float, copy_s: float, downtime_s: float, pace_tok_s: float, speed: list[float]
) -> None:
    """Between two workers that keep up with him: the standstill less what he has left when it
    begins; nothing if that is enough."""
    source_tok_s, target_tok_s = (each * pace_tok_s for each in speed)
    left_s = slack_s + (speed[0] - 1) * copy_s
    phases = [(copy_s, source_tok_s), (downtime_s, 0.0), (10.0, target_tok_s)]
    idle_s = idle_ahead_s(slack_s, phases, pace_tok_s=pace_tok_s)
    assert idle_s == pytest.approx(max(0.0, downtime_s - left_s), abs=1e-9)


READERS = st.lists(
    st.tuples(st.floats(-2, 1) | st.floats(1, 6), st.integers(60, 900), st.sampled_from([1, 50])),
    max_size=4,
)
"""Slack, context in tokens, and how long ago each was moved, seconds."""
WORKERS = st.lists(
    st.tuples(
        st.sampled_from([0.02, 0.1, 0.25, 0.5, 1.0]) | st.floats(0.19, 0.21), st.booleans(), READERS
    ),
    min_size=2,
    max_size=4,
)
"""Seconds per token, whether it drains, and who reads there."""


def worker(name: str, token_s: float, is_draining: bool, readers: list[RequestView]) -> Decoder:
    about = WorkerDescription(
        worker_id=WorkerId(name),
        incarnation=Incarnation("1"),
        role=Role.DECODE,
        engine="emulated",
        model="m",
        context_tokens_max=4096,
        block_tokens=16,
        kv_blocks=400,
        requests_max=64,
        prefill_credits=2,
        handover_lease_s=30.0,
    )
    used = sum(each.context_tokens for each in readers) // 16
    view = WorkerView(
        description=about,
        load=WorkerLoad(running=len(readers), waiting=0, kv_blocks_free=400 - used),
        observed_at=NOW,
        legs=len(readers),
        committed_tokens=0,
        is_draining=is_draining,
        token_s=token_s,
    )
    return Decoder(view, legs=readers)


def reader(name: str, slack_s: float, context_tokens: int, rested_s: float) -> RequestView:
    return RequestView(
        request_id=RequestId(name),
        prompt_tokens=context_tokens - 50,
        output_tokens_max=1000,
        arrived_at=0.0,
        attempt=1,
        pace_tok_s=5.0,
        tokens_delivered=50,
        delivered_at=NOW,
        reads_until=NOW + slack_s,
        moved_at=NOW - rested_s,
        is_movable=True,
    )


def chosen(
    drawn: list[tuple[float, bool, list[tuple[float, int, int]]]], config: MigrationConfig
) -> list[tuple[Move, RequestView]]:
    """The moves that a policy makes among such workers."""
    decoders, everybody = [], {}
    for n, (token_s, is_draining, people) in enumerate(drawn):
        here = [reader(f"r{n}.{k}", *person) for k, person in enumerate(people)]
        everybody.update({each.request_id: each for each in here})
        decoders.append(worker(f"w{n}", token_s, is_draining, here))
    policy = MigrationPolicy.of(config)
    assert policy is not None
    return [(move, everybody[move.request_id]) for move in policy.choose(decoders, now=NOW)]


@settings(max_examples=200, deadline=None)
@given(WORKERS)
def test_need_moves_only_whom_it_helps(
    drawn: list[tuple[float, bool, list[tuple[float, int, int]]]],
) -> None:
    """Who has rested, and either will be out of text before he has landed and then waits less, by
    more than the move takes, at no slower a worker; or leaves one that drains without noticing."""
    config = MigrationConfig(trigger="need")
    moves = chosen(drawn, config)
    assert len({move.request_id for move, _ in moves}) == len(moves)
    for move, who in moves:
        source_s, is_draining, _ = drawn[int(move.source[1:])]
        target_s, is_leaving, _ = drawn[int(move.target[1:])]
        slack_s, landing_s = who.slack_s(NOW), config.landing_s(who.context_tokens)
        assert NOW - who.moved_at >= config.cooldown_s
        assert not is_leaving
        copy_s = landing_s - config.downtime_s
        landed = [(copy_s, 1 / source_s), (config.downtime_s, 0.0)]
        if slack_s > landing_s:
            assert is_draining
            assert reflected_s(slack_s, landed, pace_tok_s=who.pace_tok_s) == 0
            continue
        assert target_s <= source_s
        staying = [(config.horizon_s, 1 / source_s)]
        moving = [*landed, (config.horizon_s - landing_s, 1 / target_s)]
        stays_s, goes_s = (
            reflected_s(slack_s, each, pace_tok_s=who.pace_tok_s) for each in (staying, moving)
        )
        assert stays_s - goes_s > landing_s + config.margin_s - EPSILON_S


def test_cover_looks_at_the_standstill_alone() -> None:
    """Where the source is slower than he reads, the copy takes what was to hide it."""
    config = MigrationConfig(trigger="cover", link_bytes_per_s=1e9)
    full = [(0.2, 2800, 50), (-1.0, 2800, 50)]
    ((move, who),) = chosen([(1.0, False, full), (0.02, False, [])], config)
    assert who.slack_s(NOW) > config.downtime_s + config.margin_s
    copy_s = config.landing_s(who.context_tokens) - config.downtime_s
    phases = [(copy_s, 1 / 1.0), (config.downtime_s, 0.0)]
    assert move.target == "w1"
    assert reflected_s(who.slack_s(NOW), phases, pace_tok_s=who.pace_tok_s) > config.downtime_s
