"""The learnt pace against readers whose pace is known."""

from __future__ import annotations

from bisect import bisect_right
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.reading.pace import PACE_TOK_S_MAX, PACE_TOK_S_MIN
from readahead.core.reading.pace_evidence import STARTS_MAX, ReadingTracker
from readahead.core.reading.pace_posterior import PacePosterior, PaceSample, Population

SAMPLES = st.lists(
    st.builds(
        PaceSample,
        tokens=st.floats(0, 1000),
        active_s=st.floats(0, 500),
        weight=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    ),
    max_size=30,
)


def come_to(deliveries_s: list[float], pace_tok_s: float) -> list[float]:
    """When a steady reader comes to each token; he waits where he has none."""
    times_s: list[float] = []
    for at in deliveries_s:
        times_s.append(max(at, times_s[-1] + 1 / pace_tok_s) if times_s else at)
    return times_s


def read_answers(
    pace_tok_s: float, rng: Random, *, answers: int, stall_s: float, tracker_s: float = 2.0
) -> PacePosterior:
    """The belief after answers of 300 tokens, with stalls, and a report every two seconds."""
    posterior = PacePosterior()
    for _ in range(answers):
        tracker, at = ReadingTracker(), 0.0
        deliveries: list[float] = []
        while len(deliveries) < 300:
            at += stall_s * rng.random() if rng.random() < 0.05 else 0.025
            deliveries.append(at)
        times_s = come_to(deliveries, pace_tok_s)
        reports = [n * tracker_s for n in range(1, int(times_s[-1] / tracker_s) + 1)]
        events = [(at, 0) for at in deliveries] + [(at, 1) for at in reports]
        for now, is_report in sorted(events):
            if not is_report:
                tracker.deliver(1, now=now)
            elif sample := tracker.acknowledge(bisect_right(times_s, now), now=now):
                posterior = posterior.after(sample)
    return posterior


@pytest.mark.parametrize("stall_s", [0.0, 3.0, 12.0])
@pytest.mark.parametrize("pace_tok_s", [2.0, 3.0, 5.0, 8.0, 15.0])
def test_converges_to_the_true_pace_whatever_the_stalls(pace_tok_s: float, stall_s: float) -> None:
    """Within 8 % after twelve answers for paces of 2 to 15, at any share of stalls."""
    rng = Random(f"{pace_tok_s}/{stall_s}")
    belief = read_answers(pace_tok_s, rng, answers=12, stall_s=stall_s)
    assert belief.mean_tok_s == pytest.approx(pace_tok_s, rel=0.08)


@settings(max_examples=300)
@given(
    st.lists(st.floats(0, 4), min_size=20, max_size=100),
    st.floats(1, 20),
    st.integers(0, 2**32),
)
def test_stalls_leave_no_trace_in_a_sample(
    gaps_s: list[float], pace_tok_s: float, seed: int
) -> None:
    """Reported as a steady reader comes to a token, his pace is exact, or nothing is said."""
    at, deliveries = 0.0, []
    for gap in gaps_s:
        at += gap
        deliveries.append(at)
    times_s = come_to(deliveries, pace_tok_s)
    reported = sorted(Random(seed).sample(range(2, len(times_s)), 3))
    tracker = ReadingTracker()
    events = [(at, 0, 1) for at in deliveries] + [(times_s[n - 1], 1, n) for n in reported]
    for now, is_report, n in sorted(events):
        if not is_report:
            tracker.deliver(n, now=now)
        elif sample := tracker.acknowledge(n, now=now):
            assert sample.tokens / sample.active_s == pytest.approx(pace_tok_s, rel=1e-6)


def test_drift_is_followed_and_half_forgotten_in_a_half_life() -> None:
    """Who reads at 4 and then at 8 is believed to read at 8 again, half of it after a half-life."""
    population = Population()
    belief = PacePosterior(population=population)
    for _ in range(200):
        belief = belief.after(PaceSample(tokens=40, active_s=10))
    before = belief.mean_tok_s
    for _ in range(round(population.half_life_s / 10)):
        belief = belief.after(PaceSample(tokens=80, active_s=10))
    assert belief.mean_tok_s - before == pytest.approx((8 - before) / 2, rel=0.1)
    for _ in range(200):
        belief = belief.after(PaceSample(tokens=80, active_s=10))
    assert belief.mean_tok_s == pytest.approx(8, rel=0.03)


@given(SAMPLES)
def test_the_belief_is_bounded(samples: list[PaceSample]) -> None:
    """Pace, quantiles and the weight of evidence stay within their bounds, whatever comes."""
    belief = PacePosterior()
    for sample in samples:
        belief = belief.after(sample)
    paces = [belief.scheduling_pace_tok_s(q) for q in (0.01, 0.2, 0.5, 0.8, 0.99)]
    assert paces == sorted(paces)
    for pace_tok_s in (*paces, belief.mean_tok_s):
        assert PACE_TOK_S_MIN <= pace_tok_s <= PACE_TOK_S_MAX
    assert 0 <= belief.evidence_s <= belief.population.memory_s * (1 + 1e-9)
    assert 0 <= belief.evidence_share < 1


READINGS = st.lists(
    st.tuples(st.floats(PACE_TOK_S_MIN, PACE_TOK_S_MAX / 2), st.floats(0.01, 500)),
    min_size=1,
    max_size=20,
)


@given(READINGS, st.data(), st.floats(1, 2), st.floats(0.05, 0.95))
def test_who_read_more_in_the_same_time_is_not_believed_slower(
    readings: list[tuple[float, float]], data: st.DataObject, times: float, quantile: float
) -> None:
    """Mean and quantile do not fall with any sample's tokens, at any pace at which one reads."""
    index = data.draw(st.integers(0, len(readings) - 1))
    reading = [PaceSample(tokens=pace * active_s, active_s=active_s) for pace, active_s in readings]
    more = list(reading)
    one = reading[index]
    more[index] = PaceSample(tokens=one.tokens * times, active_s=one.active_s)
    slower, faster = PacePosterior(), PacePosterior()
    for less_read, more_read in zip(reading, more, strict=True):
        slower, faster = slower.after(less_read), faster.after(more_read)
    assert faster.mean_tok_s >= slower.mean_tok_s - 1e-9
    by_less, by_more = (each.scheduling_pace_tok_s(quantile) for each in (slower, faster))
    assert by_more >= by_less - 1e-9


@given(st.floats(1, 40), st.floats(0.1, 200), st.integers(2, 30))
def test_cutting_a_steady_report_changes_nothing(
    pace_tok_s: float, active_s: float, pieces: int
) -> None:
    """Often or seldom reported, the same reading is the same evidence."""
    whole = PacePosterior().after(PaceSample(tokens=pace_tok_s * active_s, active_s=active_s))
    cut = PacePosterior()
    piece = PaceSample(tokens=pace_tok_s * active_s / pieces, active_s=active_s / pieces)
    for _ in range(pieces):
        cut = cut.after(piece)
    assert cut.mean_tok_s == pytest.approx(whole.mean_tok_s, rel=1e-9)
    assert cut.evidence_s == pytest.approx(whole.evidence_s, rel=1e-9)


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.8, 0.95])
def test_the_quantile_is_that_of_the_gamma(quantile: float) -> None:
    """Of 40,000 drawn paces, its share lies below, within a hundredth."""
    belief = PacePosterior().after(PaceSample(tokens=120, active_s=20))
    rng = Random(quantile)
    pace_tok_s = belief.scheduling_pace_tok_s(quantile)
    drawn = [rng.gammavariate(belief.shape, 1 / belief.rate_s) for _ in range(40_000)]
    below = sum(each < pace_tok_s for each in drawn) / len(drawn)
    assert below == pytest.approx(quantile, abs=0.01)


def test_deliveries_between_reports_are_kept_in_bounds() -> None:
    """A reader who never reports costs no more than one who does, and is still measured."""
    tracker, now = ReadingTracker(), 0.0
    for n in range(5000):
        now += 0.001 * (
            n + 1
        )  # ever slower: each delivery may begin a wait, so all are on the hull
        tracker.deliver(1, now=now)
    assert len(tracker._starts) <= STARTS_MAX
    tracker.deliver(50, now=now)
    assert tracker.acknowledge(5010, now=now + 2.0) is not None
