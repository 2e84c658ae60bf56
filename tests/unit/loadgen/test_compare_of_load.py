"""Several systems under the same load: in which order, and how sure the ratios are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from load_samples import SampleRun

from readahead.core.reading.score import Ruler
from readahead.loadgen.compare import Comparison, block_order, compare
from readahead.loadgen.compare_intervals import MEASURES, ratio_interval, run_interval
from readahead.loadgen.report_runs import LoadRun, read_run


def test_blocks_alternate_and_the_seed_draws_who_begins() -> None:
    orders = {tuple(block_order(["a", "b"], blocks=3, seed=seed)) for seed in range(20)}
    assert orders == {("a", "b") * 3, ("b", "a") * 3}
    assert block_order(["a", "b"], blocks=2, seed=7) == block_order(["a", "b"], blocks=2, seed=7)


@pytest.mark.parametrize(("labels", "blocks"), [(["a"], 2), (["a", "a"], 2), (["a", "b"], 0)])
def test_what_is_no_comparison_is_refused(labels: list[str], blocks: int) -> None:
    with pytest.raises(ValueError, match="comparison needs"):
        block_order(labels, blocks=blocks, seed=0)


def test_a_constant_ratio_has_a_narrow_interval() -> None:
    found = ratio_interval([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_interval_covers_the_ratios_of_the_blocks() -> None:
    found = ratio_interval([1.0, 3.0], [1.0, 1.0])
    assert found is not None
    assert found.value == 2.0
    assert (found.low, found.high) == (1.0, 3.0)


def test_undefined_ratios() -> None:
    assert ratio_interval([1.0], [0.0]) is None
    assert ratio_interval([math.nan], [1.0]) is None
    lone = ratio_interval([3.0], [2.0])
    assert lone is not None
    assert lone.value == 1.5
    assert math.isnan(lone.low)
    with pytest.raises(ValueError, match="paired"):
        ratio_interval([1.0, 2.0], [1.0])


def blocks(folder: Path, label: str, slowness: float) -> list[LoadRun]:
    """Three blocks; those of one number have the same requests."""
    return [
        read_run(
            SampleRun(seed=number, slowness=slowness).write(folder / f"{label}{number}.jsonl"),
            Ruler(),
        )
        for number in range(3)
    ]


def compared(folder: Path) -> Comparison:
    runs = {"fast": blocks(folder, "fast", 1.0), "slow": blocks(folder, "slow", 2.0)}
    return compare(runs, order=["fast", "slow"] * 3, seed=0)


def test_a_system_that_is_twice_as_slow_is_seen_as_that(tmp_path: Path) -> None:
    found = {one.measure.name: one for one in compared(tmp_path).of("slow")}
    for name in ("ttft_s.p50", "tpot_s.mean", "e2e_s.mean"):
        ratio = found[name].ratio
        assert ratio is not None
        assert ratio.value == pytest.approx(2.0, rel=1e-3)
        assert found[name].is_clear
    worse = found["smooth_goodput_censored_tok_s"].ratio
    assert worse is not None
    assert worse.high < 1


def test_the_first_is_compared_to_itself(tmp_path: Path) -> None:
    for one in compared(tmp_path).of("fast"):
        assert one.ratio is None or one.ratio.value == pytest.approx(1.0)
        assert not one.is_clear


def test_numbers_of_a_whole_run_are_the_rulers(tmp_path: Path) -> None:
    run = blocks(tmp_path, "fast", 1.0)[0]
    score = run.score.score
    found = {one.name: run_interval(run.score, one) for one in MEASURES}
    assert score.ttft_s is not None
    expected = {
        "smooth_goodput_censored_tok_s": score.smooth_goodput_censored_tok_s,
        "throughput_tok_s": score.throughput_tok_s,
        "slo_attainment": score.slo_attainment,
        "ttft_s.p99": score.ttft_s.p99,
    }
    for name, value in expected.items():
        interval = found[name]
        assert interval is not None
        assert interval.value == pytest.approx(value)
        assert interval.low <= interval.value <= interval.high or name == "ttft_s.p99"


def test_intervals_are_reproducible(tmp_path: Path) -> None:
    run = blocks(tmp_path, "fast", 1.0)[0]
    assert run_interval(run.score, MEASURES[0]) == run_interval(run.score, MEASURES[0])
