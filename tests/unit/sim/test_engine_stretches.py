"""Stretches of iterations: their times, their cuts, and what an engine does between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_clusters import MODEL, PATIENT, Kept, chunked, one_turn

from readahead.core.cluster import Role
from readahead.core.latency.iteration import IterationWork, iteration_s
from readahead.core.planning.policy import Plan
from readahead.core.planning.sequence import Sequence
from readahead.core.request import RequestId
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.engine_handovers import Handovers
from readahead.sim.kernel import Kernel
from readahead.sim.links import LINKS, Network
from readahead.sim.prefix_cache import PrefixCache
from readahead.sim.stretch import EngineTimes, Stretch
from readahead.sim.world import World

WORKER = WorkerSpec(latency=MODEL, context_tokens_max=4096)
SPEC = ClusterSpec(policy=chunked, decode_worker=WORKER, core=PATIENT)
DECODES = IterationWork(tokens=3, requests=3, past_tokens=1500, prefill_pairs=0)


def stretch(iterations: int, *, sigma: float = 0.0) -> Stretch:
    times = EngineTimes(MODEL, scale=1.0, noise_sigma=sigma, seed=(1, 2, 3))
    return times.stretch(DECODES, start_s=10.0, iterations=iterations, most_s=float("inf"))


def ends_one_by_one(iterations: int) -> list[float]:
    at_s, ends = 10.0, []
    for done in range(iterations):
        work = replace(DECODES, past_tokens=DECODES.past_tokens + done * DECODES.requests)
        at_s += iteration_s(work, model=MODEL)
        ends.append(at_s)
    return ends


def test_the_ends_are_those_of_single_iterations() -> None:
    # The planes change places within these: past tokens weigh more in one of them.
    found = stretch(3000)
    assert found.ends_s().tolist() == pytest.approx(ends_one_by_one(3000), abs=1e-9)
    assert found.end_s == found.ends_s()[-1]
    assert found.first_s == pytest.approx(ends_one_by_one(1)[0])


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_chunks_take_what_each_of_them_attends_to(sigma: float) -> None:
    """A prompt of 3,000 tokens in chunks of 200, beside one that decodes."""
    times = EngineTimes(MODEL, scale=1.0, noise_sigma=sigma, seed=(4, 5))
    prompt = Sequence(
        request_id=RequestId("p"), prompt_tokens=3000, output_tokens_max=9, arrived_at=0.0
    )
    reader = replace(prompt, prompt_tokens=50, generated=3, computed=52)
    plans = [
        Plan(
            entries=((reader, 1), (prompt, 200)),
            pulls=(),
            work=IterationWork(
                tokens=1, requests=1, past_tokens=52 + n, prefill_pairs=0
            ).with_chunk(200, before_tokens=200 * n),
            repeats_max=14 - n,
        )
        for n in range(14)
    ]
    found = times.chunks(plans[0], start_s=1.0, iterations=14, most_s=float("inf"))
    again, at_s, ends = EngineTimes(MODEL, scale=1.0, noise_sigma=sigma, seed=(4, 5)), 1.0, []
    for plan in plans:
        at_s = again.chunks(plan, start_s=at_s, iterations=1, most_s=0.01).end_s
        ends.append(at_s)
    assert found.ends_s().tolist() == pytest.approx(ends, abs=1e-12)
    if not sigma:
        assert ends[0] == pytest.approx(1.0 + iteration_s(plans[0].work, model=MODEL))
        bound_s = ends[4] - 1.0 + 1e-9
        assert times.chunks(plans[0], start_s=1.0, iterations=14, most_s=bound_s).iterations == 5


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("is_written_out", [False, True])
def test_a_cut_keeps_the_iteration_in_progress(sigma: float, is_written_out: bool) -> None:
    ends = list(stretch(50, sigma=sigma).ends_s())
    for at_s, kept in (
        (10.0, 1),
        (ends[0], 1),
        ((ends[0] + ends[1]) / 2, 2),
        (ends[20] + 1e-6, 22),
        (ends[48] + 1e-6, 50),
    ):
        found = stretch(50, sigma=sigma)
        if is_written_out:
            found.ends_s()
        assert found.cut(at_s) == (kept < 50)
        assert found.iterations == kept
        assert found.end_s == pytest.approx(ends[kept - 1], abs=1e-12)
        assert list(found.ends_s()) == pytest.approx(ends[:kept], abs=1e-12)


def test_what_is_done_counts_an_end_that_comes_now() -> None:
    found = stretch(20)
    ends = found.ends_s()
    assert found.done_by(10.0) == 0
    assert found.done_by(ends[4]) == 5
    assert found.done_by((ends[4] + ends[5]) / 2) == 5
    assert found.done_by(ends[19]) == 20
    assert list(found.head(3).ends_s()) == list(ends[:3])


def test_a_stretch_is_no_longer_than_it_may_be_but_never_empty() -> None:
    times = EngineTimes(MODEL, scale=1.0, noise_sigma=0.0, seed=(1,))
    within = times.stretch(DECODES, start_s=0.0, iterations=500, most_s=0.1)
    assert within.end_s <= 0.1 < within.end_s + 0.02
    assert times.stretch(DECODES, start_s=0.0, iterations=500, most_s=1e-9).iterations == 1


def test_an_arrival_waits_for_the_iteration_in_progress_and_no_longer() -> None:
    kept = Kept()
    World(SPEC, [one_turn(0, 0.0, 100, 400), one_turn(1, 1.0, 100, 5)], sink=kept).run()
    starts = [start_s for _, start_s, _, _, tokens in kept.stretches if tokens >= 100]
    assert starts[1] - 1.0 < 0.02
    assert starts[1] >= 1.0


def test_few_events_stand_for_many_iterations() -> None:
    kept = Kept()
    world = World(SPEC, [one_turn(0, 0.0, 100, 1000)], sink=kept)
    world.run()
    assert len(kept.requests[0].token_times_s) == 1000
    assert sum(stretch[3] for stretch in kept.stretches) == 1000
    assert len(kept.stretches) <= 3
    assert world.kernel.done < 10


def test_short_memory_preempts_and_everyone_still_gets_his_answer() -> None:
    short = replace(WORKER, kv_blocks=20, block_tokens=16, context_tokens_max=320)
    kept = Kept()
    sessions = [one_turn(n, 0.0, 60, 100) for n in range(4)]
    world = World(replace(SPEC, decode_worker=short), sessions, sink=kept)
    world.run()
    (engine,) = world.engines.values()
    assert engine.batch.preemptions > 0
    assert [len(request.token_times_s) for request in kept.requests] == [100] * 4
    engine.check()


def test_a_lease_that_nobody_renews_runs_out_and_gives_its_blocks_back() -> None:
    kernel, given = Kernel(), []
    handovers = Handovers(
        SPEC.description(SPEC.worker_ids()[0][0], Role.PREFILL, 1),
        kernel=kernel,
        network=Network(kernel, LINKS["pcie4"], kv_token_bytes=1),
        give=lambda blocks: given.append((kernel.now_s, blocks)),
    )
    handovers.keep(("a", 1), blocks=3)  # type: ignore[arg-type]
    handovers.keep(("b", 1), blocks=5)  # type: ignore[arg-type]
    kernel.at(20.0, lambda: handovers.renew(("b", 1)))  # type: ignore[arg-type]
    kernel.run()
    assert given == [(30.0, 3), (50.0, 5)]
    assert handovers.expired == 2
    assert handovers.blocks == len(handovers) == 0


def test_a_prefix_is_matched_in_whole_blocks_and_the_oldest_is_forgotten() -> None:
    cache = PrefixCache(block_tokens=16)
    cache.insert((("a", 40), ("b", 40)))
    cache.insert((("a", 40), ("c", 40)))
    assert cache.tokens == 120
    assert cache.match((("a", 40), ("b", 40), ("x", 9)), most=200) == 80
    assert cache.match((("b", 40),), most=200) == 0
    assert cache.match((("a", 40), ("b", 40)), most=79) == 64
    cache.shrink(blocks_max=5)  # c, the least recently used end of a chain, goes first
    assert cache.match((("a", 40), ("c", 40)), most=200) == 32
    assert cache.match((("a", 40), ("b", 40)), most=200) == 80
