"""Populations have the spread and the habits asked for."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace

import pytest

from readahead.workload.lengths import FixedLength
from readahead.workload.reader import Reader
from readahead.workload.readers import READERS, Durations, ReaderPopulation

EVERYTHING = ReaderPopulation(
    drift_sigma_per_100_tokens=0.05,
    tells_pace_share=0.7,
    reports_share=0.6,
    impatient_share=0.5,
    leaves_share=0.4,
    skims_share=0.3,
)


def _drawn(population: ReaderPopulation, count: int = 4000) -> list[Reader]:
    return [population.draw(random.Random(f"3/{index}")) for index in range(count)]


@pytest.mark.parametrize(("name", "pace_tok_s"), [("default", 5), ("chat", 6), ("long", 3)])
def test_presets_differ_in_pace(name: str, pace_tok_s: float) -> None:
    """The median is the preset's; the spread is 0.3 in the logarithm; nobody leaves."""
    readers = _drawn(READERS[name])
    paces = [reader.pace_tok_s for reader in readers]
    assert statistics.median(paces) == pytest.approx(pace_tok_s, rel=0.02)
    assert statistics.stdev(map(math.log, paces)) == pytest.approx(0.3, rel=0.05)
    assert all(
        reader.patience_s is reader.leaves_after_tokens is reader.skims_from_tokens is None
        for reader in readers
    )


def test_habits_have_their_shares() -> None:
    """And their distributions."""
    readers = _drawn(EVERYTHING)

    def share(name: str) -> float:
        return statistics.mean(getattr(reader, name) not in {None, False} for reader in readers)

    assert share("tells_pace") == pytest.approx(0.7, abs=0.03)
    assert share("report_every_s") == pytest.approx(0.6, abs=0.03)
    assert share("patience_s") == pytest.approx(0.5, abs=0.03)
    assert share("leaves_after_tokens") == pytest.approx(0.4, abs=0.03)
    assert share("skims_from_tokens") == pytest.approx(0.3, abs=0.03)
    patience_s = [reader.patience_s for reader in readers if reader.patience_s is not None]
    assert statistics.median(patience_s) == pytest.approx(20, rel=0.07)
    drifts = [reader.drift_per_100_tokens for reader in readers]
    assert statistics.stdev(drifts) == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tells_pace_share": 0.1}, "tells_pace"),
        ({"reports_share": 1.0}, "report_every_s"),
        ({"impatient_share": 0.9}, "patience_s"),
        ({"patience": Durations(median_s=3)}, "patience_s"),
        ({"leaves_share": 0.0}, "leaves_after_tokens"),
        ({"leaves_after": FixedLength(tokens=9)}, "leaves_after_tokens"),
        ({"skims_share": 1.0}, "skims_from_tokens"),
        ({"pace_sigma": 0.0}, "pace_tok_s"),
    ],
)
def test_changing_one_habit_changes_nothing_else_about_anybody(
    change: dict[str, object], field: str
) -> None:
    """So that two runs that differ in one share have the same people."""
    before = _drawn(EVERYTHING, 300)
    after = _drawn(replace(EVERYTHING, **change), 300)  # type: ignore[arg-type]
    assert before != after
    value = {field: None}
    assert [replace(one, **value) for one in before] == [replace(one, **value) for one in after]  # type: ignore[arg-type]


def test_think_time_is_lognormal() -> None:
    """With the median asked for; without spread it is the median."""
    rng = random.Random(2)
    times = [READERS["default"].draw_think_s(rng) for _ in range(4000)]
    assert statistics.median(times) == pytest.approx(10, rel=0.07)
    assert Durations(median_s=4).draw(rng) == 4


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"pace_median_tok_s": 0}, r"pace_median_tok_s must be within 0\.5\.\.50"),
        ({"pace_median_tok_s": math.nan}, "pace_median_tok_s"),
        ({"pace_sigma": -1}, "pace_sigma must be within"),
        ({"drift_sigma_per_100_tokens": 1}, "drift_sigma_per_100_tokens must be within"),
        ({"leaves_share": 1.1}, r"leaves_share must be within 0\.\.1"),
        ({"report_every_s": 0}, "report_every_s must be finite and > 0"),
        ({"skim_factor": 0.5}, "skim_factor must be within"),
    ],
)
def test_impossible_populations_are_refused(change: dict[str, object], complaint: str) -> None:
    """By field."""
    with pytest.raises(ValueError, match=complaint):
        ReaderPopulation(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(("median_s", "sigma"), [(0, 1), (math.inf, 1), (1, -1), (1, math.nan)])
def test_impossible_durations_are_refused(median_s: float, sigma: float) -> None:
    """By field."""
    with pytest.raises(ValueError, match=r"(median_s|sigma) must be"):
        Durations(median_s=median_s, sigma=sigma)
