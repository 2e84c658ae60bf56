"""Jumping over iterations changes nothing that anybody can see."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from small_clusters import Kept, small_sessions, small_spec

from readahead.core.config import MigrationConfig
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec
from readahead.sim.world import World


def ended(spec: ClusterSpec, seed: int) -> tuple[dict[str, EndedRequest], int]:
    kept = Kept()
    sessions = list(small_sessions(random.Random(f"jumps/{seed}"), 20))
    World(spec, sessions, sink=kept, seed=seed).run()
    return {request.request_id: request for request in kept.requests}, len(kept.stretches)


@pytest.mark.parametrize("seed", range(40))
def test_each_token_comes_when_it_would_step_by_step(seed: int) -> None:
    draw = random.Random(f"spec/{seed}")
    spec = small_spec(draw)
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
