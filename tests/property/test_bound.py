"""Laws of the clairvoyant bound: nobody exceeds it, and it says something."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from bound_clusters import any_promise, bounded_spec, lone_turns
from hypothesis import given, settings
from hypothesis import strategies as st
from small_clusters import MODEL, chunked, one_turn, small_sessions

from readahead.core.latency.iteration import Curve, IterationWork, LatencyModel, iteration_s
from readahead.core.latency.profile_text import profile
from readahead.core.planning.policies.registry import POLICIES
from readahead.core.planning.policies.vllm import Vllm
from readahead.core.reading.benefit import Form
from readahead.core.reading.curves import EndToEnd, Origin
from readahead.core.reading.score import Ruler
from readahead.sim.bound.attainment_bound import attained_bound, latest_due_s
from readahead.sim.bound.benefit_bound import benefit_bound_tokens
from readahead.sim.bound.fraction import Bounds, bounds, fraction
from readahead.sim.bound.grid import Grid, graded_grid
from readahead.sim.bound.known import KnownRequest, known_requests
from readahead.sim.bound.pieces import pieces_of, token_s
from readahead.sim.bound.rates import rates
from readahead.sim.cluster import ClusterSpec, WorkerSpec
from readahead.sim.run import RunOptions, SimulatedRun, simulate
from readahead.workload.session import Session

TOLERANCE = 1e-6
"""Of the solver, as a share."""
SEEDS = st.integers(min_value=0, max_value=2**32)
POLICY = st.sampled_from(sorted(POLICIES))


def ruler_of(draw: random.Random) -> Ruler:
    return Ruler(offset_s=draw.choice((0.0, 0.0, 0.3)), slo=any_promise(draw))


def any_form(draw: random.Random) -> Ruler:
    return replace(
        ruler_of(draw),
        form=draw.choice(tuple(Form)),
        alpha=draw.choice((0.5, 2.5, 10.0)),
        origin=draw.choice(tuple(Origin)),
    )


def any_grid(draw: random.Random, known: Sequence[KnownRequest]) -> Grid:
    """Also one so coarse, or so short, that it says nothing."""
    start_s = min(one.arrival_s for one in known) - draw.choice((0.0, 0.5))
    edges_s = {start_s + draw.expovariate(1.0) for _ in range(draw.randrange(25))}
    return Grid(tuple(sorted({start_s, *edges_s})))


def cut(draw: random.Random, grid: Grid) -> Grid:
    """A finer one: cells cut anywhere, that without end too."""
    first_s, last_s = grid.edges_s[0], grid.edges_s[-1] + 2.0
    return Grid(tuple(sorted({*grid.edges_s, *(draw.uniform(first_s, last_s) for _ in range(12))})))


def benefit_of(run: SimulatedRun, *, is_censored: bool = False) -> float:
    score = run.score
    rate = score.smooth_goodput_censored_tok_s if is_censored else score.smooth_goodput_tok_s
    return (rate or 0.0) * score.duration_s


def all_read(known: Sequence[KnownRequest]) -> int:
    """The benefit if all were served at once."""
    return sum(max(0, one.output_tokens - one.thinking_tokens) for one in known if one.has_reader)


def assert_within(run: SimulatedRun, most: Bounds, *, scale: float) -> None:
    for is_censored in (False, True):
        assert benefit_of(run, is_censored=is_censored) <= most.benefit_tokens + TOLERANCE * scale
    assert round((run.score.slo_attainment or 0.0) * run.score.requests) <= most.attained


@given(seed=SEEDS)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_policy_exceeds_the_bound(seed: int) -> None:
    """Every policy of the registry, on the default grid, under F1 and alpha 2.5."""
    draw = random.Random(seed)
    sessions = lone_turns(draw, draw.choice((1, 6, 16)), is_rush=draw.random() < 0.7)
    ruler = ruler_of(draw)
    for policy in POLICIES:
        spec = bounded_spec(random.Random(seed), policy)
        known = known_requests(spec, sessions)
        run = simulate(spec, sessions, RunOptions(ruler=ruler))
        assert_within(run, bounds(spec, known, ruler), scale=1 + all_read(known))


@given(seed=SEEDS, policy=POLICY)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nor_on_any_grid_under_any_form(seed: int, policy: str) -> None:
    draw = random.Random(seed)
    sessions = lone_turns(draw, 12, is_rush=draw.random() < 0.7)
    ruler, spec = any_form(draw), bounded_spec(draw, policy)
    known = known_requests(spec, sessions)
    run = simulate(spec, sessions, RunOptions(ruler=ruler))
    most = bounds(spec, known, ruler, grid=any_grid(draw, known))
    assert_within(run, most, scale=(1 + ruler.alpha) * (1 + all_read(known)))


@given(seed=SEEDS, policy=POLICY)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_no_run_is_faster_than_its_pieces(seed: int, policy: str) -> None:
    """What the program takes for granted: when tokens can be there, and what they cost engines,
    preempted and computed again or not."""
    draw = random.Random(seed)
    sessions = lone_turns(draw, 16, is_rush=True)
    spec = bounded_spec(draw, policy)
    pool, run = rates(spec), simulate(spec, sessions)
    known = {one.request_id: one for one in known_requests(spec, sessions)}
    assert run.run is not None
    costs_s = [line.iteration_s * sum(w.iterations for w in run.workers) for line in pool.lines]
    for timeline in run.run.timelines():
        times_s = timeline.token_times_s
        pieces = pieces_of(0, known[timeline.request_id], pool, parts=len(times_s) + 1)
        for piece in pieces:
            got_s = times_s[piece.first - 1 : piece.last]
            early_s = [piece.first_s + k * piece.step_s for k in range(len(got_s))]
            assert all(t >= s - 1e-9 for t, s in zip(got_s, early_s, strict=True))
            for place, line in enumerate(pool.lines):
                costs_s[place] += len(got_s) * token_s(line, piece, pool)
    busy_s = sum(worker.utilisation for worker in run.workers) * run.duration_s
    assert max(costs_s) <= busy_s + 1e-9


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_finer_grid_never_raises_it(seed: int) -> None:
    draw = random.Random(seed)
    spec = bounded_spec(draw, "vllm-chunked")
    known = known_requests(spec, lone_turns(draw, 12, is_rush=True))
    pool, ruler, grid = rates(spec), any_form(draw), any_grid(draw, known)
    finer = cut(draw, grid)
    coarse, fine = (benefit_bound_tokens(known, pool, ruler, grid=each) for each in (grid, finer))
    assert fine <= coarse + TOLERANCE * (1 + ruler.alpha) * (1 + abs(coarse))
    assert attained_bound(known, pool, ruler, grid=finer) <= attained_bound(
        known, pool, ruler, grid=grid
    )


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_more_engines_never_lower_it(seed: int) -> None:
    draw = random.Random(seed)
    spec = bounded_spec(draw, "vllm-chunked")
    sessions, ruler = lone_turns(draw, 12, is_rush=True), any_form(draw)
    fewer, more = (
        bounds(each, known_requests(each, sessions), ruler)
        for each in (spec, replace(spec, decode=spec.decode + 1))
    )
    assert more.benefit_tokens >= fewer.benefit_tokens - TOLERANCE * (1 + ruler.alpha) * 1000
    assert more.attained >= fewer.attained


def test_it_says_something_about_overload() -> None:
    """Under a rush the bounds are often below all requests, served at once."""
    benefit_said, attained_said, count = 0, 0, 24
    for seed in range(count):
        draw = random.Random(seed)
        spec = replace(bounded_spec(draw, "vllm-chunked"), prefill=0, decode=1)
        known = known_requests(spec, lone_turns(draw, 25, is_rush=True))
        most = bounds(spec, known, Ruler())
        benefit_said += most.benefit_tokens < 0.98 * all_read(known)
        attained_said += most.attained < len(known)
    assert benefit_said >= count // 2
    assert attained_said >= count // 2


def one_engine(engines: int = 1, *, batch_tokens: int = 500) -> ClusterSpec:
    worker = WorkerSpec(
        latency=MODEL, kv_blocks=400, context_tokens_max=6000, batch_tokens_max=batch_tokens
    )
    return ClusterSpec(
        policy=lambda _: Vllm(batch_tokens=batch_tokens), decode_worker=worker, decode=engines
    )


@pytest.mark.parametrize("pace_tok_s", [5.0, 20.0, 80.0])
@pytest.mark.parametrize("cells", [2, 40])
def test_alone_it_is_what_an_engine_gives(pace_tok_s: float, cells: int) -> None:
    """One request: the engine does all that can be done, and the bound is no more than 0.01 tokens
    above, on any grid: of its prompt's attention the diagonal alone is not counted."""
    spec, ruler = one_engine(), Ruler()
    sessions = [one_turn(0, 0.3, prompt=500, output=120, pace=pace_tok_s)]
    known = known_requests(spec, sessions)
    run = simulate(spec, sessions, RunOptions(ruler=ruler))
    most = bounds(spec, known, ruler, grid=graded_grid(known, ruler, cells=cells))
    assert benefit_of(run) <= most.benefit_tokens <= benefit_of(run) + 0.01
    assert most.benefit_tokens < 120 or pace_tok_s == 5.0


def prompt_alone_s(spec: ClusterSpec, tokens: int) -> float:
    work = IterationWork(tokens=0, requests=0, past_tokens=0, prefill_pairs=0).with_chunk(tokens)
    return iteration_s(work, model=spec.decode_worker.latency)


@pytest.mark.parametrize("prompt", [500, 5000])
@pytest.mark.parametrize(("slack", "together"), [(0.99, 0), (1.7, 1), (2.05, 2)])
def test_of_two_that_are_due_together_one_has_room(
    slack: float, together: int, prompt: int
) -> None:
    """The bound and what an engine does, by how many prompts' times both are due."""
    spec, due_s = one_engine(batch_tokens=prompt), slack * prompt_alone_s(one_engine(), prompt)
    ruler = Ruler(slo=EndToEnd(e2e_s=due_s))
    sessions = [one_turn(number, 0.0, prompt=prompt, output=1) for number in range(2)]
    known = known_requests(spec, sessions)
    most = bounds(spec, known, ruler, grid=Grid((0.0, due_s)))
    run = simulate(spec, sessions, RunOptions(ruler=ruler))
    assert most.attained == together
    assert round((run.score.slo_attainment or 0.0) * 2) == together
    twice = one_engine(2, batch_tokens=prompt)
    doubled = bounds(twice, known, ruler, grid=Grid((0.0, due_s)))
    assert doubled.attained == (2 if together else 0)


@pytest.mark.parametrize(("slack", "together"), [(0.9, 0), (1.3, 1), (2.1, 2)])
def test_of_two_that_fill_the_memory_one_has_room(slack: float, together: int) -> None:
    """Decodes could share a batch, were there blocks for both; the bound knows that there are not,
    and is what an engine does."""
    worker = WorkerSpec(latency=MODEL, kv_blocks=34, context_tokens_max=540, batch_tokens_max=500)
    spec = ClusterSpec(policy=chunked, decode_worker=worker)
    sessions = [one_turn(number, 0.0, prompt=500, output=40) for number in range(2)]
    alone_s = simulate(spec, sessions[:1]).duration_s
    due_s = slack * alone_s
    ruler = Ruler(slo=EndToEnd(e2e_s=due_s))
    known = known_requests(spec, sessions)
    most = bounds(spec, known, ruler, grid=Grid((0.0, due_s)))
    run = simulate(spec, sessions, RunOptions(ruler=ruler))
    assert most.attained == together
    assert round((run.score.slo_attainment or 0.0) * 2) == together


def models() -> list[LatencyModel]:
    curve = Curve(sizes=(3, 8, 20, 64, 300), values=(1e-3, -4e-3, 2e-3, 6e-3, 1e-3))
    weights = Curve(sizes=(1, 4, 16), values=(1.0, 0.6, 1.4))
    names = ("llama-3.1-8b-a100-80g", "llama-3.1-8b-h100", "tiny-cpu")
    found = [profile(name).latency for name in names]
    return [MODEL, replace(MODEL, tile_s=curve, kv_weight=weights, host_request_s=1e-5), *found]


MODELS = models()


@given(
    model=st.sampled_from(MODELS),
    chunks=st.lists(st.tuples(st.integers(2, 400), st.integers(0, 2000)), max_size=4),
    decodes=st.lists(st.integers(1, 4000), max_size=60),
    scale=st.sampled_from((1.0, 1.3)),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_no_iteration_is_below_a_line(
    model: LatencyModel, chunks: list[tuple[int, int]], decodes: list[int], scale: float
) -> None:
    work = IterationWork(
        tokens=len(decodes), requests=len(decodes), past_tokens=sum(decodes), prefill_pairs=0
    )
    for tokens, before in chunks:
        work = work.with_chunk(tokens, before_tokens=before)
    worker = WorkerSpec(latency=model, true_scale=scale, batch_tokens_max=2048)
    pool = rates(ClusterSpec(policy=chunked, decode_worker=worker))
    assert pool.lines
    for line in pool.lines:
        assert min(line.iteration_s, line.entry_s, line.token_s, line.past_token_s) >= 0
        least_s = (
            line.iteration_s
            + line.entry_s * work.requests
            + line.token_s * work.tokens
            + line.past_token_s * work.past_tokens
            + line.pair_s * work.prefill_pairs
        )
        if work.tokens:
            assert least_s <= scale * iteration_s(work, model=model) + 1e-12


@given(
    model=st.sampled_from(MODELS),
    past_tokens=st.integers(1, 3000),
    cut=st.integers(1, 3000),
    has_prefix_cache=st.booleans(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_next_token_costs_less(
    model: LatencyModel, past_tokens: int, cut: int, has_prefix_cache: bool
) -> None:
    """Decoded, or computed again from nothing, or from what a prefix cache had, in two chunks."""
    whole, cut = past_tokens + 1, min(cut, past_tokens)
    nothing = IterationWork(tokens=0, requests=0, past_tokens=0, prefill_pairs=0)
    decoded = IterationWork(tokens=1, requests=1, past_tokens=past_tokens, prefill_pairs=0)
    last = decoded if whole - cut == 1 else nothing.with_chunk(whole - cut, before_tokens=cut)
    ways = [[decoded], [nothing.with_chunk(whole)], [nothing.with_chunk(cut), last]]
    if has_prefix_cache:
        ways.append([last])
    worker = WorkerSpec(latency=model, batch_tokens_max=4096, has_prefix_cache=has_prefix_cache)
    pool = rates(ClusterSpec(policy=chunked, decode_worker=worker))
    took_s = [math.fsum(iteration_s(work, model=model) for work in way) for way in ways]
    assert pool.step_s(past_tokens) <= min(took_s) + 1e-12
    assert pool.first_token_s(whole) <= min(took_s[1:]) + 1e-12
    assert pool.prompt_step_s(whole) <= pool.first_token_s(whole) + 1e-12


@given(seed=SEEDS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_kept_promise_is_later_than_its_latest(seed: int) -> None:
    """Tokens that come just when they are due, or sooner: where the promise is kept, each is there
    by its latest time."""
    draw = random.Random(seed)
    (session,) = lone_turns(draw, 1, is_rush=False)
    (request,) = known_requests(one_engine(), [session])
    ruler = ruler_of(draw)
    promise = ruler.promise(request.timeline())
    haste_s, times_s = draw.choice((0.0, 0.001, 0.05)), [request.arrival_s]
    for _ in range(request.output_tokens):
        due_s = promise.next_due_s(request.timeline(tuple(times_s[1:])))
        times_s.append(max(times_s[-1], due_s - haste_s if due_s < math.inf else 0.0))
    timeline = request.timeline(tuple(times_s[1:]))
    assert promise.is_met(timeline)
    for place, at_s in enumerate(timeline.token_times_s, start=1):
        assert at_s <= latest_due_s(request, ruler, place) + 1e-9


def test_what_cannot_be_bounded_is_refused() -> None:
    """Drawn times, later turns, and arrivals before the grid."""
    spec = one_engine()
    noisy = replace(spec, decode_worker=replace(spec.decode_worker, noise_sigma=0.2))
    with pytest.raises(ValueError, match="noise_sigma"):
        rates(noisy)
    unlike = replace(spec, prefill=1, prefill_worker=replace(spec.decode_worker, kv_blocks=500))
    with pytest.raises(ValueError, match="alike"):
        rates(unlike)
    turns = next(s for s in small_sessions(random.Random(1), 50) if len(s.turns) > 1)
    with pytest.raises(ValueError, match="turns"):
        known_requests(spec, [turns])
    known = known_requests(spec, [one_turn(0, 0.0, prompt=10, output=5)])
    with pytest.raises(ValueError, match="before the grid"):
        bounds(spec, known, Ruler(), grid=Grid((1.0, 2.0)))


def test_a_run_is_a_fraction_of_its_bound() -> None:
    """In closed form, and never of another workload's."""
    spec, ruler = one_engine(), Ruler()
    sessions: list[Session] = [one_turn(0, 0.0, prompt=100, output=50)]
    run = simulate(spec, sessions, RunOptions(ruler=ruler))
    most = bounds(spec, known_requests(spec, sessions), ruler)
    reached = fraction(run.score, most)
    assert reached.attainment == 1.0
    assert reached.benefit == pytest.approx(1.0)
    rate = most.smooth_goodput_tok_s(run.score.duration_s)
    assert rate == pytest.approx(run.score.smooth_goodput_tok_s)
    half = fraction(run.score, replace(most, benefit_tokens=2 * most.benefit_tokens))
    assert half.benefit == pytest.approx(0.5)
    with pytest.raises(ValueError, match="requests"):
        fraction(run.score, replace(most, requests=2))
    nothing = bounds(spec, [], ruler)
    assert (nothing.benefit_tokens, nothing.attained) == (0.0, 0)
    assert math.isclose(fraction(run.score, replace(most, attained=0)).benefit or 0.0, 1.0)
