"""Laws of the iteration-time model: stretches, budgets and the online correction."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.latency.budget import tokens_within
from readahead.core.latency.correction import OnlineCorrection
from readahead.core.latency.iteration import (
    Curve,
    IterationWork,
    LatencyModel,
    LatencyPlane,
    iteration_s,
)
from readahead.core.latency.stretch import Stretch, iterations_within, stretch_s, times_s

COEFFICIENT_S = st.one_of(st.just(0.0), st.floats(1e-9, 1e-3))
PLANES = st.builds(
    LatencyPlane,
    token_s=COEFFICIENT_S,
    request_s=COEFFICIENT_S,
    past_token_s=COEFFICIENT_S,
    prefill_pair_s=st.one_of(st.just(0.0), st.floats(1e-10, 1e-7)),
    draft_step_s=COEFFICIENT_S,
    base_s=st.floats(0, 0.1),
)
MODELS = st.builds(
    LatencyModel,
    name=st.just("drawn"),
    planes=st.lists(PLANES, min_size=1, max_size=6).map(tuple),
    time_scale=st.sampled_from([1.0, 0.1, 1.7]),
    mixing=st.floats(1, 3),
    host_base_s=st.floats(0, 1e-3),
    host_request_s=st.floats(0, 1e-4),
)


@st.composite
def curved(draw: st.DrawFn) -> LatencyModel:
    """A model with curves; those that would take more than there is are raised until they fit."""
    model = draw(MODELS)
    sizes = tuple(sorted(draw(st.sets(st.integers(1, 600), min_size=1, max_size=6))))
    share = st.lists(st.floats(-1, 1), min_size=len(sizes), max_size=len(sizes))
    least_s = max(plane.base_s + plane.token_s for plane in model.planes)
    weights = st.lists(st.floats(0.3, 3), min_size=len(sizes), max_size=len(sizes))
    return replace(
        model,
        tile_s=Curve(sizes=sizes, values=tuple(least_s * one for one in draw(share))),
        kv_weight=Curve(sizes=sizes, values=tuple(draw(weights))),
    )


CURVED = curved()
ANY_MODEL = st.one_of(MODELS, CURVED)
WORKS = st.builds(
    IterationWork,
    tokens=st.integers(1, 300),
    requests=st.integers(1, 300),
    past_tokens=st.integers(0, 200_000),
    prefill_pairs=st.just(0),
    draft_steps=st.integers(0, 4),
)
LENGTHS = st.integers(0, 200)


def one_by_one_s(work: IterationWork, iterations: int, model: LatencyModel) -> list[float]:
    """When each iteration ends, each asked of the model itself."""
    grown = (
        replace(work, past_tokens=work.past_tokens + index * work.requests)
        for index in range(iterations)
    )
    return list(accumulate(iteration_s(one, model=model) for one in grown))


@settings(max_examples=300, deadline=None)
@given(WORKS, LENGTHS, ANY_MODEL)
def test_a_stretch_is_its_iterations(
    work: IterationWork, iterations: int, model: LatencyModel
) -> None:
    """The closed form agrees with adding up, at the end and at each iteration before it."""
    expected_s = one_by_one_s(work, iterations, model)
    assert times_s(work, iterations, model=model) == pytest.approx(expected_s, rel=1e-9, abs=1e-12)
    total_s = stretch_s(work, iterations, model=model)
    assert total_s == pytest.approx(expected_s[-1] if expected_s else 0.0, rel=1e-9, abs=1e-12)
    assert len(Stretch.of(work, model=model).segments) <= len(model.planes)


@settings(max_examples=300, deadline=None)
@given(WORKS, st.floats(0, 20), ANY_MODEL)
def test_as_many_fit_as_end_in_time(
    work: IterationWork, seconds: float, model: LatencyModel
) -> None:
    """The count is the greatest whose total is within the time."""
    count = iterations_within(work, seconds, model=model, most=5000)
    assert stretch_s(work, count, model=model) <= seconds
    assert count == 5000 or stretch_s(work, count + 1, model=model) > seconds


@settings(max_examples=200, deadline=None)
@given(WORKS, st.floats(0, 1), st.integers(0, 5000), ANY_MODEL)
def test_the_budget_is_the_longest_chunk_in_time(
    work: IterationWork, seconds: float, before_tokens: int, model: LatencyModel
) -> None:
    """All longer ones would be too late, with curves too; the chunk itself is not, unless none."""
    most = 1500
    tokens = tokens_within(seconds, model=model, work=work, before_tokens=before_tokens, most=most)

    def took_s(count: int) -> float:
        return iteration_s(work.with_chunk(count, before_tokens=before_tokens), model=model)

    assert tokens == 0 or took_s(tokens) <= seconds
    assert all(took_s(longer) > seconds for longer in range(tokens + 1, most + 1))


@settings(max_examples=200, deadline=None)
@given(
    WORKS,
    MODELS,
    st.sampled_from(["tokens", "requests", "past_tokens", "prefill_pairs", "draft_steps"]),
    st.integers(1, 10_000),
)
def test_more_work_takes_no_less_time(
    work: IterationWork, model: LatencyModel, field: str, more: int
) -> None:
    """Of any model: mixing and the host's part do not break it."""
    grown = replace(work, **{field: getattr(work, field) + more})
    assert iteration_s(grown, model=model) >= iteration_s(work, model=model)


@settings(max_examples=200, deadline=None)
@given(
    WORKS,
    CURVED,
    st.sampled_from(["past_tokens", "prefill_pairs", "draft_steps"]),
    st.integers(1, 10_000),
)
def test_curves_leave_the_rest_monotone(
    work: IterationWork, model: LatencyModel, field: str, more: int
) -> None:
    """What tiles and batch sizes make of tokens and requests, more to read takes no less time."""
    grown = replace(work, **{field: getattr(work, field) + more})
    assert iteration_s(grown, model=model) >= iteration_s(work, model=model) > -1e-12


def test_a_curve_goes_straight_between_its_sizes() -> None:
    """And stays what it is beyond them."""
    curve = Curve(sizes=(4, 8), values=(1.0, 3.0))
    assert [curve.at(size) for size in (1, 4, 5, 8, 9)] == [1.0, 1.0, 1.5, 3.0, 3.0]
    for sizes in ((8, 4), ()):
        with pytest.raises(ValueError, match="sizes"):
            Curve(sizes=sizes, values=(1.0, 3.0)[: len(sizes) or 2])


def test_curves_that_no_device_has_are_refused() -> None:
    """Less than no time, and KV that costs nothing."""
    plane = LatencyPlane(base_s=0.01, token_s=1e-5)
    with pytest.raises(ValueError, match="tile_s takes more than there is at 1 to 64"):
        LatencyModel(name="x", planes=(plane,), tile_s=Curve(sizes=(64, 65), values=(-0.02, 0.0)))
    with pytest.raises(ValueError, match="kv_weight"):
        LatencyModel(name="x", planes=(plane,), kv_weight=Curve(sizes=(1,), values=(0.0,)))


def test_a_worker_slowed_by_half_is_tracked() -> None:
    """Within five half-lives the correction is within 3 % of 1.5; and back likewise."""
    correction = OnlineCorrection()
    for true in (1.5, 1.0):
        for _ in range(160):
            correction = correction.after(actual_s=0.02 * true, predicted_s=0.02)
        assert correction.factor == pytest.approx(true, rel=0.03)


@pytest.mark.parametrize("true", [0.7, 1.0, 1.5])
def test_noise_does_not_bias_the_correction(true: float) -> None:
    """Over ten thousand noisy iterations the mean factor is within 1 % of the true one."""
    random = Random("noise")
    correction, factors = OnlineCorrection(factor=true), []
    for _ in range(10_000):
        noisy_s = 0.02 * true * random.uniform(0.6, 1.4)
        correction = correction.after(actual_s=noisy_s, predicted_s=0.02)
        factors.append(correction.factor)
    assert sum(factors) / len(factors) == pytest.approx(true, rel=0.01)


def test_one_pause_counts_as_a_slow_iteration_only() -> None:
    """A pause of a minute moves the factor as five times the prediction would."""
    paused = OnlineCorrection().after(actual_s=60.0, predicted_s=0.02)
    assert paused == OnlineCorrection().after(actual_s=0.1, predicted_s=0.02)


def test_many_at_once_teach_as_much_as_one_by_one() -> None:
    """A stretch of k iterations counts as k observations of its ratio."""
    stepwise = OnlineCorrection()
    for _ in range(50):
        stepwise = stepwise.after(actual_s=0.03, predicted_s=0.02)
    at_once = OnlineCorrection().after(actual_s=1.5, predicted_s=1.0, iterations=50)
    assert at_once.factor == pytest.approx(stepwise.factor)


def test_correction_scales_the_model() -> None:
    """The corrected model's times are the factor's multiple."""
    model = LatencyModel(name="test", planes=(LatencyPlane(base_s=0.01),), time_scale=2.0)
    corrected = OnlineCorrection(factor=1.5).corrected(model)
    work = IterationWork(tokens=1, requests=1, past_tokens=0, prefill_pairs=0)
    assert iteration_s(work, model=corrected) == pytest.approx(0.03)
