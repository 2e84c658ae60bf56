"""Laws of simulated engines that speculate; those of every world are in test_sim_laws."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from small_clusters import MODEL, PATIENT, Kept, chunked, one_turn, small_sessions, small_spec

from readahead.core.config import MigrationConfig
from readahead.core.latency.iteration import LatencyModel
from readahead.sim.bound.rates import rates
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.drafts import Predictability, RightDrafts
from readahead.sim.results import record_line
from readahead.sim.settings import ClusterSettings
from readahead.sim.world import World

WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096, draft_tokens_max=4)


def spec_of(mean: float, *, spread: float = 0.0, worker: WorkerSpec = WORKER) -> ClusterSpec:
    return ClusterSpec(
        policy=chunked,
        decode_worker=worker,
        core=PATIENT,
        predictability=Predictability(mean=mean, spread=spread),
    )


def world_of(spec: ClusterSpec, outputs: list[int], *, seed: int = 0) -> tuple[World, Kept]:
    kept = Kept()
    sessions = [one_turn(n, 0.01 * n, 100, output) for n, output in enumerate(outputs)]
    world = World(spec, sessions, sink=kept, seed=seed)
    world.run()
    return world, kept


def slow_drafts(step_s: float) -> LatencyModel:
    planes = tuple(replace(plane, draft_step_s=step_s) for plane in MODEL.planes)
    return replace(MODEL, planes=planes)


@pytest.mark.parametrize("seed", range(12))
def test_jumping_changes_nothing_here_either(seed: int) -> None:
    """Readers who decode are stepped through in any case; prompts alone are not."""
    draw = random.Random(f"drafts/{seed}")
    spec = small_spec(draw)
    worker = replace(spec.decode_worker, noise_sigma=0.0, draft_tokens_max=draw.randrange(1, 6))
    still = replace(spec.core, migration=MigrationConfig())
    lines = []
    for stretch_s_max in (float("inf"), 1e-9):
        kept = Kept()
        own = replace(spec, decode_worker=worker, core=still, stretch_s_max=stretch_s_max)
        sessions = list(small_sessions(random.Random(f"drafts/{seed}"), 20))
        World(own, sessions, sink=kept, seed=seed).run()
        lines.append(sorted(record_line(request) for request in kept.requests))
    assert lines[0] == lines[1]


@pytest.mark.parametrize("seed", range(6))
def test_answers_are_as_long_as_they_are_and_come_sooner(seed: int) -> None:
    draw = random.Random(seed)
    outputs = [draw.randrange(1, 120) for _ in range(8)]
    ends = []
    for draft_tokens_max in (0, 4):
        worker = replace(WORKER, draft_tokens_max=draft_tokens_max)
        world, kept = world_of(spec_of(0.8, worker=worker), outputs, seed=seed)
        kept.requests.sort(key=lambda request: request.request_id)
        assert sorted(len(each.token_times_s) for each in kept.requests) == sorted(outputs)
        ends.append(world.kernel.now_s)
    assert ends[1] < 0.7 * ends[0]


def test_all_right_or_all_wrong() -> None:
    """1 + 4 tokens an iteration where every draft is right; where none is, one, and few drafts."""
    (engine,) = world_of(spec_of(1.0), [501])[0].engines.values()
    counts = engine.counts
    assert counts.tokens_accepted == counts.tokens_drafted
    assert counts.tokens_made == 501
    assert counts.iterations <= 1 + 500 / 5 + 20  # it takes some drafts to find out
    (engine,) = world_of(spec_of(0.0), [501])[0].engines.values()
    counts = engine.counts
    assert counts.tokens_accepted == 0
    assert counts.iterations == counts.tokens_made == 501
    assert counts.tokens_drafted < 501 / 4


def test_each_iteration_makes_one_token_and_those_accepted() -> None:
    """None is lost, but those behind the answer's end."""
    (engine,) = world_of(spec_of(0.6, spread=0.2), [700])[0].engines.values()
    counts = engine.counts
    beyond = counts.iterations + counts.tokens_accepted - counts.tokens_made
    assert 0 <= beyond <= 4
    assert counts.tokens_drafted > counts.tokens_accepted > 0
    assert counts.tokens_computed == 100 + (counts.iterations - 1) + counts.tokens_drafted


def test_a_draft_that_takes_longer_than_it_saves_is_not_made() -> None:
    dear = replace(WORKER, latency=slow_drafts(0.05))
    cheap = replace(WORKER, latency=slow_drafts(1e-4))
    (engine,) = world_of(spec_of(0.6, worker=dear), [400])[0].engines.values()
    few = engine.counts.tokens_drafted
    (engine,) = world_of(spec_of(0.6, worker=cheap), [400])[0].engines.values()
    assert few < 0.1 * engine.counts.tokens_drafted


def test_time_of_drafting_is_the_models() -> None:
    """All drafts right, so that the same is drafted: the difference is the steps' time."""
    times = []
    for step_s in (1e-4, 2e-4):
        world, _ = world_of(
            spec_of(1.0, worker=replace(WORKER, latency=slow_drafts(step_s))), [501]
        )
        (engine,) = world.engines.values()
        times.append((engine.counts.busy_s, engine.counts.tokens_drafted))
    (short_s, drafted), (long_s, same) = times
    assert drafted == same
    assert long_s - short_s == pytest.approx(1e-4 * drafted, rel=1e-6)


def test_kv_of_what_was_refused_is_not_kept() -> None:
    """Memory for one reader and no more: drafts take what is free and give it back."""
    tight = replace(WORKER, kv_blocks=20, context_tokens_max=320)
    kept = Kept()
    world = World(spec_of(0.3, worker=tight), [one_turn(0, 0.0, 100, 219)], sink=kept)
    while world.asked or not kept.requests:
        world.run(world.kernel.now_s + 0.02)
        for engine in world.engines.values():
            engine.check()
            for sequence in engine.batch.running:
                most = engine.batch.limits.blocks_for(sequence.known + 4)
                assert sequence.blocks <= most
    assert len(kept.requests[0].token_times_s) == 219
    (engine,) = world.engines.values()
    assert engine.batch.blocks_free == 20


def test_text_is_as_predictable_as_it_is_whoever_asks() -> None:
    """Whatever lengths are drafted and in which order, a place in the text is right or is not."""
    about = Predictability(mean=0.7, spread=0.1)
    one, other = RightDrafts(about, seed="x"), RightDrafts(about, seed="x")
    whole = other.accepted(2000, after=0)
    runs = [one.accepted(5, after=after) for after in range(0, 2000, 3)]
    again = [other.accepted(5, after=after) for after in range(0, 2000, 3)]
    assert runs == again
    assert whole == next(i for i in range(2000) if not one.accepted(1, after=i))
    shares = []
    for seed in range(400):
        text = RightDrafts(about, seed=str(seed))
        shares.append(sum(text.accepted(1, after=place) for place in range(300)) / 300)
    mean = sum(shares) / 400
    assert mean == pytest.approx(0.7, abs=0.03)
    spread = (sum((share - mean) ** 2 for share in shares) / 400) ** 0.5
    assert spread == pytest.approx(0.1, abs=0.02)


def test_settings_say_it_all() -> None:
    """Of a file or a command line; a step of drafting takes what the profile says and that."""
    plain = ClusterSettings().spec()
    spec = ClusterSettings(
        draft_tokens_max=3, draft_step_s=0.002, acceptance=0.8, acceptance_spread=0.1
    ).spec()
    assert plain.decode_worker.draft_tokens_max == 0
    assert spec.decode_worker.draft_tokens_max == 3
    assert spec.predictability == Predictability(mean=0.8, spread=0.1)
    for before, after in zip(
        plain.decode_worker.latency.planes, spec.decode_worker.latency.planes, strict=True
    ):
        assert after == replace(before, draft_step_s=before.draft_step_s + 0.002)
    assert ClusterSettings().spec().decode_worker.latency == plain.decode_worker.latency


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="spread"):
        Predictability(mean=0.9, spread=0.4)
    with pytest.raises(ValueError, match="draft_tokens_max must be 0"):
        rates(spec_of(0.6))
