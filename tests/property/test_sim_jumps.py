"""Jumping over iterations changes nothing that anybody can see."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from small_clusters import Kept, small_sessions, small_spec
from wild_parking import PARKS_EARLY

from readahead.core.config import MigrationConfig
from readahead.core.planning.policies.registry import POLICIES, make_policy
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.links import Link
from readahead.sim.world import World

SHORT_KV_BLOCKS = 40
"""Just more than one request may need, so that preemption and full memory are the rule."""


def ended(spec: ClusterSpec, seed: int) -> tuple[dict[str, EndedRequest], int]:
    kept = Kept()
    sessions = list(small_sessions(random.Random(f"jumps/{seed}"), 20))
    World(spec, sessions, sink=kept, seed=seed).run()
    return {request.request_id: request for request in kept.requests}, len(kept.stretches)


def check(spec: ClusterSpec, seed: int) -> None:
    """Runs it both ways and compares all times of all users."""
    quiet = replace(spec.decode_worker, noise_sigma=0.0)
    still = replace(spec.core, migration=MigrationConfig())  # what it sees is older with jumps
    jumping = replace(spec, decode_worker=quiet, stretch_s_max=float("inf"), core=still)
    stepping = replace(jumping, stretch_s_max=1e-9)
    jumped, stretches = ended(jumping, seed)
    stepped, iterations = ended(stepping, seed)
    assert stretches < iterations
    assert jumped.keys() == stepped.keys()
    for request_id, request in jumped.items():
        other = stepped[request_id]
        assert request.outcome is other.outcome, request_id
        assert list(request.token_times_s) == pytest.approx(list(other.token_times_s), abs=1e-7)
        assert request.ended_s == pytest.approx(other.ended_s, abs=1e-7)


@pytest.mark.parametrize("seed", range(40))
def test_each_token_comes_when_it_would_step_by_step(seed: int) -> None:
    check(small_spec(random.Random(f"spec/{seed}")), seed)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("seed", range(10))
def test_so_it_is_under_every_policy_with_short_memory(policy: str, seed: int) -> None:
    check_short(policy, seed)


@pytest.mark.parametrize("seed", range(12))
def test_so_it_is_where_readers_are_parked(seed: int) -> None:
    draw = random.Random(f"spec/{seed}")
    spec = small_spec(draw)
    link = Link(name="host", bytes_per_s=draw.choice((1e9, 1e10)), latency_s=1e-4)
    worker = replace(
        spec.decode_worker,
        kv_blocks=SHORT_KV_BLOCKS,
        requests_max=16,
        host_blocks=200,
        host_link=link,
    )
    knobs = {**PARKS_EARLY, "copy_gb_s": link.bytes_per_s / 1e9}
    alone = replace(spec, prefill=0, decode=1, decode_worker=worker)
    check(replace(alone, policy=lambda _: make_policy("readahead", knobs)), seed)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_so_it_is_for_many_more(policy: str) -> None:
    for seed in range(10, 210):
        check_short(policy, seed)


def check_short(policy: str, seed: int) -> None:
    spec = small_spec(random.Random(f"spec/{seed}"))
    worker = replace(spec.decode_worker, kv_blocks=SHORT_KV_BLOCKS)
    check(replace(spec, decode_worker=worker, policy=lambda _: make_policy(policy)), seed)
