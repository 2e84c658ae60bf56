"""Policies by name, and what the planner believes of iteration times."""

from __future__ import annotations

from pathlib import Path

import pytest

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.latency.iteration import LLAMA_3_1_8B_A100_80G, IterationWork, iteration_s
from readahead.core.latency.profile_text import profile, profiles, to_text
from readahead.services.config import EngineConfig
from readahead.services.engine.emulated import EmulatedEngine
from readahead.services.engine.emulated_profile import EmulatedProfile
from readahead.services.engine.vllm_scheduler_belief import EVERY, RETELL, Belief, latency_of
from readahead.services.engine.vllm_scheduler_names import POLICY_NAMES, STOCK, make_engine_policy

WORK = IterationWork(tokens=32, requests=32, past_tokens=32_000, prefill_pairs=0)


def test_stock_is_no_planner_and_all_others_are() -> None:
    """By their names; the stock order has no knobs."""
    assert POLICY_NAMES[0] == STOCK == EngineConfig().policy
    assert make_engine_policy(STOCK, {}) is None
    for name in POLICY_NAMES[1:]:
        policy = make_engine_policy(name, {})
        assert policy is not None
        assert policy.name == name
    with pytest.raises(ValueError, match="rich_s is no knob of vllm"):
        make_engine_policy(STOCK, {"rich_s": 1.0})


def test_wrong_policy_is_refused_with_the_settings() -> None:
    """Before an engine starts; names the key, and what there is."""
    with pytest.raises(ValueError, match=r"engine\.policy: policy must be one of vllm, "):
        EngineConfig(policy="fastest")
    with pytest.raises(ValueError, match=r"engine\.policy: rich_s must be from 0 to 60"):
        EngineConfig(policy="readahead", policy_knobs={"rich_s": 99.0})


async def test_emulated_engine_runs_under_the_policy_too() -> None:
    """From its settings, and at run time; one that there is not changes nothing."""
    from readahead.core.cluster import Role

    engine = EmulatedEngine(EmulatedProfile(model="toy"), role=Role.DECODE)
    await engine.select_policy("readahead", {"rich_s": 3.0})
    with pytest.raises(ReadaheadError, match="policy must be one of") as caught:
        await engine.select_policy("fastest", {})
    assert caught.value.reason is Reason.INVALID_REQUEST
    assert engine._batch.policy.name == "readahead"


def test_latency_by_name_or_file(tmp_path: Path) -> None:
    """As a shipped profile, or as calibration writes one; nothing where nothing is named."""
    name = next(iter(profiles()))
    file = tmp_path / "measured.json"
    file.write_text(to_text(profile(name)), encoding="utf-8")
    assert latency_of("") is None
    assert latency_of(name) == latency_of(str(file)) == profile(name).latency
    with pytest.raises(ValueError, match="no file"):
        latency_of(str(tmp_path / "absent.json"))
    with pytest.raises(ValueError, match="no profile"):
        latency_of("abacus")


def run(belief: Belief, *, slower: float, iterations: int, in_flight: int) -> int:
    """Iterations one after the other, `in_flight` scheduled ahead; how often the model changed."""
    took_s = slower * iteration_s(WORK, model=LLAMA_3_1_8B_A100_80G)
    changes, now = 0, 0.0
    for _ in range(in_flight):
        belief.began(WORK if belief.is_due() else None, now)
    for _ in range(iterations):
        belief.began(WORK if belief.is_due() else None, now)
        now += took_s
        changes += belief.ended(now)
    return changes


@pytest.mark.parametrize("in_flight", [0, 1])
@pytest.mark.parametrize("slower", [0.5, 3.0])
def test_belief_becomes_what_is_measured(slower: float, in_flight: int) -> None:
    """Also where an iteration is scheduled while another runs; in few steps, not in each."""
    belief = Belief(LLAMA_3_1_8B_A100_80G)
    changes = run(belief, slower=slower, iterations=400 * EVERY, in_flight=in_flight)
    assert belief.model is not None
    measured_s = slower * iteration_s(WORK, model=LLAMA_3_1_8B_A100_80G)
    assert iteration_s(WORK, model=belief.model) == pytest.approx(measured_s, rel=1.1 * RETELL)
    assert 0 < changes < 60


def test_right_belief_stays() -> None:
    """And who believes nothing learns nothing."""
    belief = Belief(LLAMA_3_1_8B_A100_80G)
    assert run(belief, slower=1.0, iterations=200, in_flight=1) == 0
    assert belief.model is LLAMA_3_1_8B_A100_80G
    nothing = Belief(None)
    assert run(nothing, slower=3.0, iterations=200, in_flight=0) == 0
    assert nothing.model is None
