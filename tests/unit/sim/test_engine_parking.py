"""Parking in a simulated engine: copies take their time, and nothing is lost by them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from small_clusters import MODEL, PATIENT, Kept, one_turn
from wild_parking import PARKS_EARLY, Timetable

from readahead.core.cluster import Role
from readahead.core.errors import Reason
from readahead.core.messages import Event, MigrateLeg, MigrationFailed
from readahead.core.planning.policies.registry import make_policy
from readahead.core.reading.timeline import Outcome
from readahead.core.request import RequestId, WorkerId
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.engine import Engine
from readahead.sim.engine_host import LOOK_S
from readahead.sim.faults import Fault
from readahead.sim.links import Link
from readahead.sim.moves import Moves
from readahead.sim.run import RunOptions, simulate
from readahead.sim.settings import ClusterSettings
from readahead.sim.trace_export import ChromeTrace
from readahead.sim.world import World
from readahead.workload.reader import Reader
from readahead.workload.session import Session

LINK = Link(name="test host", bytes_per_s=1e8, latency_s=1e-3)
WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096, host_blocks=400, host_link=LINK)
BLOCK_BYTES = 16 * 131_072
AWAY = (1.0, 2.0)
ITERATION_S = 0.012
"""No iteration here takes longer."""


def cluster(
    away: Mapping[str, tuple[float, float]], *, worker: WorkerSpec = WORKER, is_copied: bool = True
) -> ClusterSpec:
    return ClusterSpec(
        policy=lambda _: Timetable(away, is_copied=is_copied), decode_worker=worker, core=PATIENT
    )


def world_of(spec: ClusterSpec, *sessions: Session, **options: object) -> tuple[World, Kept]:
    kept = Kept()
    return World(spec, sessions, sink=kept, **options), kept  # type: ignore[arg-type]


def engine_of(world: World) -> Engine:
    (engine,) = world.engines.values()
    return engine


def copy_s(tokens: int) -> float:
    """A copy that has the link to itself."""
    return LINK.alone_s(-(-tokens // 16) * BLOCK_BYTES)


def test_one_who_is_parked_goes_on_once_his_kv_is_back() -> None:
    world, kept = world_of(cluster({"s0": AWAY}), one_turn(0, 0.0, 100, 300))
    world.run()
    (request,) = kept.requests
    times_s = list(request.token_times_s)
    assert len(times_s) == 300
    gaps = [(after - before, before, after) for before, after in pairwise(times_s)]
    longest_s, before_s, after_s = max(gaps)
    assert AWAY[0] - ITERATION_S < before_s < AWAY[0] + ITERATION_S
    known = 100 + times_s.index(before_s) + 1
    back_s = AWAY[1] + copy_s(known - 1)
    assert back_s < after_s < back_s + LOOK_S + ITERATION_S
    assert sorted(gaps)[-2][0] < ITERATION_S
    assert longest_s > 1.2


def test_blocks_follow_their_copies() -> None:
    """Held on the device until the copy is made, on the host until it is back."""
    world, _ = world_of(cluster({"s0": AWAY}), one_turn(0, 0.0, 100, 300))
    batch = engine_of(world).batch
    assert batch.host is not None
    world.run(0.99)
    blocks = batch.limits.kv_blocks - batch.blocks_free
    assert batch.host.blocks_free == 400

    def seen(at_s: float) -> tuple[int, int]:
        world.run(at_s)
        engine_of(world).check()
        return batch.limits.kv_blocks - batch.blocks_free, 400 - batch.host.blocks_free  # type: ignore[union-attr]

    assert seen(1.1) == (blocks, blocks)
    assert batch.host.blocks_coming == blocks
    assert seen(1.0 + copy_s(16 * blocks) - 0.02) == (blocks, blocks)
    assert seen(1.0 + copy_s(16 * blocks) + 0.02) == (0, blocks)
    assert seen(2.1) == (blocks, blocks)
    assert seen(2.0 + copy_s(16 * blocks) + 0.02 + LOOK_S) == (blocks, 0)


def test_copies_of_one_direction_share_the_link() -> None:
    away = {"s0": AWAY, "s1": AWAY}
    world, _ = world_of(cluster(away), one_turn(0, 0.0, 100, 300), one_turn(1, 0.0, 100, 300))
    host = engine_of(world).batch.host
    assert host is not None
    world.run(1.05)
    both = host.blocks_coming
    one_s = copy_s(16 * both // 2)
    world.run(1.0 + 1.8 * one_s)
    assert host.blocks_coming == both
    world.run(1.02 + 2 * one_s)
    assert host.blocks_coming == 0


def test_others_go_on_meanwhile() -> None:
    """They lose nothing by copies but what a smaller batch gains them."""
    sessions = one_turn(0, 0.0, 100, 300), one_turn(1, 0.0, 100, 300)
    world, kept = world_of(cluster({"s0": AWAY}), *sessions)
    world.run()
    other = next(each for each in kept.requests if each.session_id == "s1")
    gaps = [after - before for before, after in pairwise(other.token_times_s)]
    assert max(gaps[1:]) < ITERATION_S


def test_one_without_a_copy_is_computed_again() -> None:
    plain, _ = world_of(cluster({}), one_turn(0, 0.0, 100, 300))
    plain.run()
    world, kept = world_of(cluster({"s0": AWAY}, is_copied=False), one_turn(0, 0.0, 100, 300))
    world.run()
    engine, other = engine_of(world), engine_of(plain)
    assert engine.copies is not None
    assert engine.copies.bytes == 0
    known = 100 + sum(time < 1.5 for time in kept.requests[0].token_times_s)
    assert engine.counts.tokens_computed == other.counts.tokens_computed + known - 1
    assert len(kept.requests[0].token_times_s) == 300


def test_one_for_whom_the_host_has_no_room_sits_out() -> None:
    small = replace(WORKER, host_blocks=3)
    world, kept = world_of(cluster({"s0": AWAY}, worker=small), one_turn(0, 0.0, 100, 300))
    world.run()
    host = engine_of(world).batch.host
    assert host is not None
    assert (host.parks, host.refused > 0) == (0, True)
    times_s = kept.requests[0].token_times_s
    assert not any(AWAY[0] + ITERATION_S < time < AWAY[1] for time in times_s)
    assert len(times_s) == 300


@pytest.mark.parametrize("leaves_at_s", [1.1, 1.6, 2.15])
def test_a_reader_may_leave_while_parked(leaves_at_s: float) -> None:
    """While his copy is made, then when it is there, then while it is loaded."""
    patience_s = leaves_at_s - AWAY[0]
    reader = Reader(pace_tok_s=1000.0, patience_s=patience_s)
    session = replace(one_turn(0, 0.0, 100, 300), reader=reader)
    world, kept = world_of(cluster({"s0": AWAY}), session)
    world.run()
    (request,) = kept.requests
    assert request.outcome is Outcome.CANCELLED
    assert request.ended_s == pytest.approx(leaves_at_s, abs=2 * ITERATION_S)
    engine = engine_of(world)
    engine.check()
    assert engine.is_idle
    assert engine.batch.blocks_free == engine.batch.limits.kv_blocks
    assert engine.batch.host is not None
    assert engine.batch.host.blocks_free == 400


@pytest.mark.parametrize("fails_at_s", [1.1, 1.6, 2.15])
def test_a_worker_that_fails_loses_what_it_has_on_the_host(fails_at_s: float) -> None:
    """Whoever had text keeps it, as with any leg; the next incarnation has an empty host."""
    fault = Fault(worker_id=WorkerId("decode-00"), at_s=fails_at_s, down_s=0.5)
    spec = cluster({"s0": AWAY})
    sessions = one_turn(0, 0.0, 100, 300), one_turn(1, fails_at_s + 1.0, 100, 50)
    world, kept = world_of(spec, *sessions, faults=[fault])
    world.run()
    lost, late = kept.requests
    assert (lost.outcome, late.outcome) == (Outcome.FAILED, Outcome.FINISHED)
    assert len(lost.token_times_s) > 90
    assert max(lost.token_times_s) < AWAY[0] + ITERATION_S
    engine = engine_of(world)
    assert engine.batch.host is not None
    assert engine.batch.host.blocks_free == 400
    assert world.lost[0].batch.host is not None
    assert world.lost[0].batch.host.parks == 1


@pytest.mark.parametrize("at_s", [1.1, 1.6, 2.15])
def test_one_who_is_parked_does_not_migrate(at_s: float) -> None:
    """Nor one on his way back: his KV is in one place."""
    spec = replace(cluster({"s0": AWAY}), decode=2)
    world, kept = world_of(spec, one_turn(0, 0.0, 100, 300))
    world.run(at_s)
    (asked,) = world.asked.values()
    assert asked.engine is not None
    source = asked.engine.description.worker_id
    (target,) = set(world.engines) - {source}
    told: list[Event] = []
    moves = Moves(world.engines, network=world.network, tell=told.append, landed=lambda *_: None)
    moves.begin(
        MigrateLeg(
            request_id=RequestId(asked.request_id),
            attempt=asked.attempt,
            move=1,
            source=source,
            target=target,
        )
    )
    (event,) = told
    assert isinstance(event, MigrationFailed)
    assert event.reason is Reason.OVERLOADED
    world.run()
    assert kept.requests[0].outcome is Outcome.FINISHED


def crowd(park: bool, seed: int) -> tuple[World, Kept]:
    """A dozen readers at once, in memory for four of them."""
    quick = replace(LINK, bytes_per_s=1e10)
    worker = replace(WORKER, kv_blocks=100, context_tokens_max=600, host_link=quick)
    knobs = {**PARKS_EARLY, "park": park, "copy_gb_s": 10.0}
    spec = ClusterSpec(
        policy=lambda _: make_policy("readahead", knobs), decode_worker=worker, core=PATIENT
    )
    sessions = [one_turn(n, 0.05 * n, 150 + 10 * seed, 150 + 7 * n) for n in range(12)]
    world, kept = world_of(spec, *sessions)
    world.run()
    return world, kept


@pytest.mark.parametrize("seed", range(3))
def test_parking_takes_the_place_of_waiting(seed: int) -> None:
    """All first tokens come sooner, and nobody is computed again."""
    (parking, kept), (plain, others) = crowd(True, seed), crowd(False, seed)
    host = engine_of(parking).batch.host
    assert host is not None
    assert host.parks > 0
    firsts = [max(r.token_times_s[0] - r.arrival_s for r in k.requests) for k in (kept, others)]
    assert firsts[0] < 0.5 * firsts[1]
    again = [engine_of(world).batch.recomputed_tokens for world in (parking, plain)]
    assert again[0] <= again[1]


def test_the_trace_and_the_summary_show_copies() -> None:
    trace = ChromeTrace()
    found = simulate(cluster({"s0": AWAY}), [one_turn(0, 0.0, 100, 300)], RunOptions(trace=trace))
    (worker,) = found.workers
    assert worker.parks == 1
    assert worker.copied_bytes > 20 * BLOCK_BYTES
    file = io.StringIO()
    trace.write(file)
    names = [event["name"] for event in json.loads(file.getvalue())["traceEvents"]]
    assert names.count("KV from decode-00") == names.count("KV from decode-00 host") == 1
    assert found.transfers == 0


def test_settings_say_how_much_and_how_fast() -> None:
    plain = ClusterSettings().spec().decode_worker
    assert plain.host_blocks == 0
    spec = ClusterSettings(
        profile="llama-3.1-8b-a100-80g",
        host_bytes=10 * BLOCK_BYTES + 1,
        policy="readahead",
        knobs={"park": True},
    ).spec()
    worker = spec.decode_worker
    assert worker.host_blocks == 10
    assert worker.host_link.bytes_per_s == 25e9
    told = make_policy("readahead", {"park": True, "copy_gb_s": 25.0})
    assert spec.policy(Role.DECODE) == told


def test_a_policy_that_parks_needs_a_place_for_it() -> None:
    with pytest.raises(ValueError, match="park needs host_bytes"):
        ClusterSettings(policy="readahead", knobs={"park": True}).spec()
