"""Engines that share a machine slow each other, and only while they compute."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from small_clusters import MODEL, PATIENT, Kept, chunked, small_sessions, small_spec

from readahead.core.config import MigrationConfig
from readahead.core.request import WorkerId
from readahead.sim.asked import EndedRequest
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.faults import Fault
from readahead.sim.links import Link
from readahead.sim.world import World
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn

SHARE = 0.5
YOUNG = 24


def ended(
    spec: ClusterSpec, sessions: list[Session], faults: Sequence[Fault] = ()
) -> dict[str, EndedRequest]:
    kept = Kept()
    World(spec, sessions, sink=kept, seed=1, faults=faults).run()
    return {request.session_id: request for request in kept.requests}


def cluster(*, engines: int, contention: float, young_s: float = 0.0) -> ClusterSpec:
    """Engines that do everything themselves."""
    worker = WorkerSpec(
        latency=MODEL,
        kv_blocks=400,
        context_tokens_max=600,
        contention=contention,
        young_tokens=YOUNG if young_s else 0,
        young_s=young_s,
    )
    return ClusterSpec(
        policy=chunked,
        decode_worker=worker,
        decode=engines,
        link=Link(name="test", bytes_per_s=1e9, latency_s=1e-3),
        core=PATIENT,
    )


def session(name: str, arrival_s: float, output_tokens: int) -> Session:
    return Session(
        session_id=name,
        arrival_s=arrival_s,
        scenario="test",
        tenant="",
        user=name,
        reader=Reader(pace_tok_s=5.0),
        turns=(Turn(segments=(Segment(name, 50),), output_tokens=output_tokens),),
    )


def test_an_engine_alone_is_not_slowed() -> None:
    sessions = list(small_sessions(random.Random("alone"), 20))
    alone = ended(cluster(engines=1, contention=0.0), sessions)
    shared = ended(cluster(engines=1, contention=SHARE), sessions)
    assert {k: list(r.token_times_s) for k, r in alone.items()} == {
        k: list(r.token_times_s) for k, r in shared.items()
    }


def test_two_that_compute_together_are_slowed_by_the_share() -> None:
    """Equal requests at one time, one for each engine: all but the iterations in progress when
    the other begins take (1 + share) times as long."""
    both = [session("a", 0.0, 200), session("b", 0.0, 200)]
    alone = ended(cluster(engines=2, contention=0.0), both)
    shared = ended(cluster(engines=2, contention=SHARE), both)
    for name, request in alone.items():
        apart = list(request.token_times_s)
        together = list(shared[name].token_times_s)
        assert together[-1] - together[0] == pytest.approx((1 + SHARE) * (apart[-1] - apart[0]))


def test_the_rest_goes_on_as_fast_as_alone_once_the_other_has_ended() -> None:
    sessions = [session("long", 0.0, 200), session("short", 0.0, 20)]
    alone = ended(cluster(engines=2, contention=0.0), sessions)
    shared = ended(cluster(engines=2, contention=SHARE), sessions)
    end_s = shared["short"].ended_s
    assert end_s > alone["short"].ended_s
    after = [time for time in shared["long"].token_times_s if time > end_s][1:]
    apart = list(alone["long"].token_times_s)[-len(after) :]
    assert [b - a for a, b in pairwise(after)] == pytest.approx([b - a for a, b in pairwise(apart)])


def test_an_engine_that_comes_back_is_slowed_from_its_first_iteration() -> None:
    """The other has computed all the time, and neither begins nor stops meanwhile."""
    sessions = [session("long", 0.0, 400), session("late", 1.0, 20)]
    lost = [Fault(worker_id=WorkerId("decode-01"), at_s=0.2, down_s=0.2)]
    alone = ended(cluster(engines=2, contention=0.0), sessions, lost)
    shared = ended(cluster(engines=2, contention=SHARE), sessions, lost)
    assert alone["long"].ended_s > alone["late"].ended_s
    apart, together = (list(one["late"].token_times_s) for one in (alone, shared))
    assert [b - a for a, b in pairwise(together)] == pytest.approx(
        [(1 + SHARE) * (b - a) for a, b in pairwise(apart)]
    )


@pytest.mark.parametrize("seed", range(20))
def test_jumps_change_nothing_where_engines_slow_each_other(seed: int) -> None:
    """A stretch is cut where another engine begins or stops, or somebody is young no more."""
    drawn = small_spec(random.Random(f"contention/{seed}"))
    worker = replace(
        drawn.decode_worker, noise_sigma=0.0, contention=SHARE, young_tokens=YOUNG, young_s=1e-3
    )
    spec = replace(
        drawn, decode_worker=worker, core=replace(drawn.core, migration=MigrationConfig())
    )
    sessions = list(small_sessions(random.Random(f"contention/{seed}"), 20))
    jumped = ended(replace(spec, stretch_s_max=float("inf")), sessions)
    stepped = ended(replace(spec, stretch_s_max=1e-9), sessions)
    assert jumped.keys() == stepped.keys()
    for name, request in jumped.items():
        assert list(request.token_times_s) == pytest.approx(
            list(stepped[name].token_times_s), abs=1e-7
        )


def test_the_young_make_iterations_longer_until_they_are_not() -> None:
    """A request alone: so many seconds more for each of its first tokens but the prompt's own."""
    alone = ended(cluster(engines=1, contention=0.0), [session("a", 0.0, 60)])["a"]
    young = ended(cluster(engines=1, contention=0.0, young_s=1e-3), [session("a", 0.0, 60)])["a"]
    gaps, longer = ([b - a for a, b in pairwise(list(one.token_times_s))] for one in (alone, young))
    more_s = [b - a for a, b in zip(gaps, longer, strict=True)]
    assert more_s == pytest.approx([1e-3] * (YOUNG - 1) + [0.0] * (60 - YOUNG), abs=1e-9)


def test_two_young_ones_count_twice_and_contention_slows_that_too() -> None:
    """In one batch, and in two engines of a machine."""
    both = [session("a", 0.0, YOUNG), session("b", 0.0, YOUNG)]
    plain = ended(cluster(engines=1, contention=0.0), both)["b"]
    young = ended(cluster(engines=1, contention=0.0, young_s=1e-3), both)["b"]
    gap = [one.token_times_s[-1] - one.token_times_s[-2] for one in (plain, young)]
    assert gap[1] - gap[0] == pytest.approx(2e-3)
    apart = ended(cluster(engines=2, contention=SHARE), both)["b"]
    shared = ended(cluster(engines=2, contention=SHARE, young_s=1e-3), both)["b"]
    gap = [one.token_times_s[-1] - one.token_times_s[-2] for one in (apart, shared)]
    assert gap[1] - gap[0] == pytest.approx((1 + SHARE) * 1e-3)
