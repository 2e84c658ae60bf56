"""Laws of every simulated world: nothing is lost, nothing comes before its cause."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from small_clusters import Kept, small_sessions, small_spec
from wild_parking import PARKS_EARLY, WildParking

from readahead.core.cluster import Role
from readahead.core.planning.policies.registry import POLICIES, make_policy
from readahead.core.planning.policy import BatchPolicy
from readahead.core.reading.timeline import Outcome
from readahead.core.router_state import RouterState
from readahead.sim.cluster import ClusterSpec
from readahead.sim.drafts import Predictability
from readahead.sim.faults import fault_plan
from readahead.sim.links import Link
from readahead.sim.replay import RecordingRouter, replay
from readahead.sim.results import record_line
from readahead.sim.world import World, new_router

SEEDS = range(120)
SPECULATING_SEEDS = range(200, 230)
PARKING_SEEDS = range(300, 340)
REQUESTS = 25


def spec_of(seed: int, draw: random.Random) -> ClusterSpec:
    """Any cluster; one whose engines speculate, or park, for some of the seeds."""
    spec = small_spec(draw)
    if seed in PARKING_SEEDS:
        return parking(spec, seed, draw)
    if seed not in SPECULATING_SEEDS:
        return spec
    worker = replace(spec.decode_worker, draft_tokens_max=draw.randrange(1, 6))
    about = Predictability(mean=draw.choice((0.0, 0.5, 0.9, 1.0)), spread=0.0)
    return replace(spec, decode_worker=worker, predictability=about)


def parking(spec: ClusterSpec, seed: int, draw: random.Random) -> ClusterSpec:
    """By plan, whenever it can, or at random; some speculate as well."""
    worker = replace(
        spec.decode_worker,
        kv_blocks=40,
        host_blocks=draw.choice((3, 20, 1000)),
        host_link=Link(name="host", bytes_per_s=draw.choice((1e8, 1e10)), latency_s=1e-4),
        draft_tokens_max=draw.choice((0, 0, 3)),
    )
    knobs = {**PARKS_EARLY, "copy_gb_s": worker.host_link.bytes_per_s / 1e9}

    def policy(role: Role) -> BatchPolicy:
        if seed % 2:
            return WildParking(random.Random(f"wild/{seed}"))
        return make_policy("readahead", knobs)

    return replace(spec, decode_worker=worker, policy=policy)


def world_of(seed: int, router: RecordingRouter | None = None) -> tuple[World, Kept]:
    draw = random.Random(seed)
    spec = spec_of(seed, draw)
    sessions = list(small_sessions(draw, REQUESTS))
    faults = fault_plan(
        [worker_id for worker_id, _ in spec.worker_ids()],
        seed=seed,
        until_s=12.0,
        mean_up_s=draw.choice((2.0, 6.0, 1e9)),
        mean_down_s=0.7,
    )
    kept = Kept()
    recording = router
    return World(spec, sessions, sink=kept, seed=seed, faults=faults, router=recording), kept


def lines_of(seed: int) -> list[str]:
    world, kept = world_of(seed)
    world.run()
    return [record_line(request) for request in kept.requests]


@pytest.mark.parametrize("seed", [*SEEDS, *SPECULATING_SEEDS, *PARKING_SEEDS])
def test_any_world_keeps_the_laws(seed: int) -> None:
    spec = spec_of(seed, random.Random(seed))
    world, kept = world_of(seed)
    for until_s in (0.5, 1.0, 2.0, 4.0, 8.0):
        world.run(until_s)
        for engine in world.engines.values():
            engine.check()
        assert isinstance(world.router, RouterState)
        world.router.check()
    world.run()

    # Everyone ended, once, and nothing is left anywhere.
    assert world.asked == {}
    assert max(Counter(request.request_id for request in kept.requests).values()) == 1
    firsts = {r.request_id.split(".")[0] for r in kept.requests}
    assert firsts == {f"s{number}" for number in range(REQUESTS)}
    for engine in world.engines.values():
        engine.check()
        assert engine.is_idle
        assert engine.handovers.blocks == 0
        assert engine.batch.blocks_free == engine.batch.limits.kv_blocks
        host = engine.batch.host
        assert host is None or host.blocks_free == host.blocks

    # No token before its request, none after its end, none in the wrong order, none too many.
    for request in kept.requests:
        times_s = list(request.token_times_s)
        assert times_s == sorted(times_s)
        assert len(times_s) <= spec.output_tokens_max
        assert request.arrival_s <= request.ended_s
        if times_s:
            assert request.arrival_s < times_s[0]
            assert times_s[-1] <= request.ended_s
        if request.outcome is Outcome.FINISHED:
            assert times_s

    # Engines made the tokens that users got.
    delivered = sum(len(request.token_times_s) for request in kept.requests)
    lives = [*world.engines.values(), *world.lost]
    made = sum(engine.counts.tokens_made for engine in lives)
    assert made == delivered

    if seed in PARKING_SEEDS and seed % 2:
        assert any(one.batch.host is not None and one.batch.host.parks for one in lives)

    # An engine does one thing at a time.
    busy_until: dict[str, float] = {}
    for worker_id, start_s, end_s, iterations, _ in kept.stretches:
        assert start_s >= busy_until.get(worker_id, 0.0)
        assert end_s > start_s
        assert iterations >= 1
        busy_until[worker_id] = end_s


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", range(3))
def test_every_policy_serves_everyone(name: str, seed: int) -> None:
    draw = random.Random(f"policy/{seed}")
    spec = replace(small_spec(draw), policy=lambda _: make_policy(name))
    kept = Kept()
    world = World(spec, list(small_sessions(draw, REQUESTS)), sink=kept, seed=seed)
    world.run()
    assert world.asked == {}
    assert {request.outcome for request in kept.requests} <= {
        Outcome.FINISHED,
        Outcome.CANCELLED,
        Outcome.FAILED,
    }
    for engine in world.engines.values():
        engine.check()
        assert engine.is_idle


@pytest.mark.parametrize("seed", range(12))
def test_a_recorded_log_replays_to_the_same_commands(seed: int) -> None:
    spec = small_spec(random.Random(seed))
    recording = RecordingRouter(new_router(spec))
    world, _ = world_of(seed, router=recording)
    world.run()
    assert len(recording.log) > REQUESTS
    assert replay(recording.log, new_router(spec)) is None
    broken = [told for told in recording.log if told.commands]
    assert replay(broken[1:], new_router(spec)) is not None


def test_two_processes_write_the_same_bytes() -> None:
    """Whatever the order of hashes in them."""
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import test_sim_laws\n"
        "for seed in (*range(0, 40, 7), 201, 202, 301, 302, 303):\n"
        "    print('\\n'.join(test_sim_laws.lines_of(seed)))\n"
    )
    here = Path(__file__).resolve().parent
    folders = [str(here), str(here.parent / "support")]
    found = [
        subprocess.run(
            [sys.executable, "-c", script, *folders],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert found[0] == found[1]
    assert all(json.loads(line)["simulated"] for line in found[0].splitlines())
