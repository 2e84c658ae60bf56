"""The iteration-time model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.core.latency.iteration import (
    LLAMA_3_1_8B_A100_80G,
    IterationWork,
    LatencyModel,
    LatencyPlane,
    iteration_s,
)

NOTHING = IterationWork(tokens=0, requests=0, past_tokens=0, prefill_pairs=0)


def prefill(tokens: int) -> IterationWork:
    pairs = tokens * (tokens + 1) // 2
    return IterationWork(tokens=tokens, requests=1, past_tokens=0, prefill_pairs=pairs)


def decode(batch: int, past_tokens: int) -> IterationWork:
    return IterationWork(
        tokens=batch, requests=batch, past_tokens=batch * past_tokens, prefill_pairs=0
    )


@pytest.mark.parametrize(
    ("tokens", "expected_ms"), [(512, 34), (1024, 63), (2048, 123), (4096, 256), (8192, 558)]
)
def test_default_prefill_passes_its_anchors(tokens: int, expected_ms: float) -> None:
    """The default profile is within 5 % of the prefill times that it was drawn through."""
    took_s = iteration_s(prefill(tokens), model=LLAMA_3_1_8B_A100_80G)
    assert took_s * 1e3 == pytest.approx(expected_ms, rel=0.05)


@pytest.mark.parametrize(("batch", "expected_ms"), [(1, 11.4), (8, 12.0), (32, 15.0), (128, 24.2)])
def test_default_decode_passes_its_anchors(batch: int, expected_ms: float) -> None:
    """The default profile is within 5 % of the decode times that it was drawn through."""
    took_s = iteration_s(decode(batch, 1024), model=LLAMA_3_1_8B_A100_80G)
    assert took_s * 1e3 == pytest.approx(expected_ms, rel=0.05)


@pytest.mark.parametrize(
    "field", ["tokens", "requests", "past_tokens", "prefill_pairs", "draft_steps"]
)
def test_more_work_never_takes_less_time(field: str) -> None:
    """The time does not fall when anything grows."""
    work = IterationWork(tokens=100, requests=4, past_tokens=1000, prefill_pairs=5000)
    before_s = iteration_s(work, model=LLAMA_3_1_8B_A100_80G)
    for more in (1, 100, 10_000):
        grown = replace(work, **{field: getattr(work, field) + more})
        assert iteration_s(grown, model=LLAMA_3_1_8B_A100_80G) >= before_s


def test_time_is_the_greatest_plane_scaled() -> None:
    """The slowest bound rules, and the scale multiplies all of it."""
    planes = (LatencyPlane(token_s=1.0, base_s=2.0), LatencyPlane(base_s=10.0, draft_step_s=1.0))
    model = LatencyModel(name="test", planes=planes)
    assert iteration_s(prefill(3), model=model) == 10.0
    assert iteration_s(prefill(20), model=model) == 22.0
    assert iteration_s(prefill(20), model=replace(model, time_scale=0.5)) == 11.0
    assert iteration_s(replace(prefill(3), draft_steps=4), model=model) == 14.0


def test_no_tokens_take_no_time() -> None:
    """An iteration that does not happen costs nothing."""
    assert iteration_s(NOTHING, model=LLAMA_3_1_8B_A100_80G) == 0.0


def test_a_model_refuses_nonsense() -> None:
    """No planes, negative coefficients and a scale of zero are refused."""
    with pytest.raises(ValueError, match="planes"):
        LatencyModel(name="test", planes=())
    with pytest.raises(ValueError, match="token_s"):
        LatencyPlane(token_s=-1.0)
    with pytest.raises(ValueError, match="base_s"):
        LatencyPlane(base_s=float("nan"))
    with pytest.raises(ValueError, match="time_scale"):
        LatencyModel(name="test", planes=(LatencyPlane(),), time_scale=0.0)
