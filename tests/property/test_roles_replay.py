"""Elastic roles in simulated clusters: determined by what happened, and off by default."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from small_clusters import Kept, small_sessions, small_spec

from readahead.core.cluster import Role
from readahead.core.config import PlacementConfig
from readahead.core.messages import SubmitLeg
from readahead.core.request import Leg
from readahead.core.router_state import RouterState
from readahead.sim.cluster import ClusterSpec
from readahead.sim.faults import fault_plan
from readahead.sim.replay import RecordingRouter, Told, replay
from readahead.sim.world import World, new_router

SEEDS = range(12)
REQUESTS = 25
ELASTIC = PlacementConfig(roles="elastic")


def spec_of(seed: int, placement: PlacementConfig) -> ClusterSpec:
    spec = small_spec(random.Random(f"roles/{seed}"))
    core = replace(spec.core, placement=placement)
    return replace(spec, core=core, prefill=1 + seed % 2)


def router_of(seed: int, placement: PlacementConfig) -> RouterState:
    """As a live one for half of the seeds: without a model of iteration times."""
    spec = spec_of(seed, placement)
    return new_router(spec) if seed % 4 < 2 else RouterState(spec.core)


@cache
def log_of(seed: int, placement: PlacementConfig) -> list[Told]:
    """What the router of a cluster was told, some of whose workers fail, until all is over."""
    spec = spec_of(seed, placement)
    router = RecordingRouter(router_of(seed, placement))
    faults = fault_plan(
        [worker_id for worker_id, _ in spec.worker_ids()],
        seed=seed,
        until_s=8.0,
        mean_up_s=4.0,
        mean_down_s=0.7,
    )
    sessions = small_sessions(random.Random(seed), REQUESTS)
    world = World(spec, sessions, sink=Kept(), seed=seed, faults=faults, router=router)
    world.run()
    assert not world.asked
    for engine in world.engines.values():
        engine.check()
        assert engine.is_idle
        assert not engine.handovers.blocks
    return router.log


def submitted(log: list[Told]) -> list[SubmitLeg]:
    return [c for told in log for c in told.commands if isinstance(c, SubmitLeg)]


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_events_place_prompts_equally(seed: int) -> None:
    """A recorded log, told to a fresh core, gives the same commands."""
    log = log_of(seed, ELASTIC)
    assert replay(log, router_of(seed, ELASTIC)) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_each_prompt_is_placed_exactly_once(seed: int) -> None:
    """A try has one prefill leg or is computed whole, never both."""
    prompts = Counter(
        (each.request_id, each.attempt)
        for each in submitted(log_of(seed, ELASTIC))
        if each.leg is not Leg.DECODE
    )
    assert set(prompts.values()) == {1}


def test_prompts_are_computed_in_both_pools_and_answers_are_kept() -> None:
    """Each of the three ways is taken somewhere, so that the laws above mean something."""
    ways: set[tuple[Leg, Role]] = set()
    for seed in SEEDS:
        roles = dict(spec_of(seed, ELASTIC).worker_ids())
        ways |= {(each.leg, roles[each.worker_id]) for each in submitted(log_of(seed, ELASTIC))}
    assert ways == {
        (Leg.PREFILL, Role.PREFILL),
        (Leg.WHOLE, Role.PREFILL),
        (Leg.WHOLE, Role.DECODE),
        (Leg.DECODE, Role.DECODE),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_switched_off_they_change_nothing(seed: int) -> None:
    """The default is static pools: their log replays whatever else the settings say, and no prompt
    that is worth a handover is computed by a decode worker."""
    log = log_of(seed, PlacementConfig())
    other = PlacementConfig(roles="static", keep_queue_s=0.0, chunk_tokens=1)
    assert replay(log, router_of(seed, other)) is None
    roles = dict(spec_of(seed, other).worker_ids())
    for each in submitted(log):
        assert (each.leg is Leg.PREFILL) == (roles[each.worker_id] is Role.PREFILL)
