"""Presets, the order of precedence, the table of users, calibration."""

from __future__ import annotations

from random import Random

import pytest

from readahead.core.reading.pace import (
    PACE_TOK_S_MAX,
    PRESETS_TOK_S,
    PaceSource,
    Scenario,
    choose_pace,
)
from readahead.core.reading.pace_calibration import TooFewUsersError, calibrate, replay
from readahead.core.reading.pace_evidence import ReadingTracker, dwell_sample
from readahead.core.reading.pace_posterior import PacePosterior, PaceSample, Population
from readahead.core.reading.pace_users import UserPaces

READ_A_LOT = PaceSample(tokens=800, active_s=100)


def test_presets() -> None:
    """A chat is read faster than a long summary; nobody reads thinking or tool calls."""
    assert (PRESETS_TOK_S[Scenario.CHAT], PRESETS_TOK_S[Scenario.SUMMARY]) == (6, 3)
    assert PRESETS_TOK_S[Scenario.DEFAULT] == 5
    assert PRESETS_TOK_S[Scenario.THINKING] is PRESETS_TOK_S[Scenario.TOOL] is None
    assert set(PRESETS_TOK_S) == set(Scenario)


def test_explicit_beats_learnt_beats_preset_beats_default() -> None:
    """Whoever is nearest to the user has the last word."""
    paces = UserPaces()
    assert paces.choose("u").source is PaceSource.DEFAULT
    assert paces.choose("u", default_tok_s=4).pace_tok_s == 4
    assert paces.choose("u", scenario=Scenario.SUMMARY).pace_tok_s == 3
    paces.learn("u", READ_A_LOT)
    learnt = paces.choose("u", scenario=Scenario.SUMMARY)
    assert learnt.source is PaceSource.LEARNT
    assert learnt.pace_tok_s is not None
    assert 7 < learnt.pace_tok_s < 9
    explicit = paces.choose("u", explicit_tok_s=2.5, scenario=Scenario.SUMMARY)
    assert (explicit.pace_tok_s, explicit.source) == (2.5, PaceSource.EXPLICIT)
    assert paces.choose("v", scenario=Scenario.CHAT).source is PaceSource.PRESET


@pytest.mark.parametrize("scenario", [Scenario.THINKING, Scenario.TOOL])
def test_nobody_reads_some_stages(scenario: Scenario) -> None:
    """No pace is made up for them, whatever is known of the user."""
    choice = choose_pace(explicit_tok_s=3, learnt_tok_s=4, scenario=scenario)
    assert choice.pace_tok_s is None


def test_a_little_reading_does_not_go_before_the_preset() -> None:
    """The user's own reading counts from when it outweighs the population."""
    paces = UserPaces()
    paces.learn("u", PaceSample(tokens=4, active_s=1))
    assert paces.choose("u", scenario=Scenario.CHAT).source is PaceSource.PRESET


def test_the_table_forgets_who_has_not_read_for_longest() -> None:
    """At the limit he is a new user; those who read stay."""
    paces = UserPaces(users_max=2)
    for user_id in ("a", "b", "a", "c"):
        paces.learn(user_id, READ_A_LOT)
    assert (len(paces), paces.forgotten) == (2, 1)
    assert paces.learnt_tok_s("b") is None
    assert paces.learnt_tok_s("a") is not None
    paces.learn("", READ_A_LOT)
    assert len(paces) == 2


def test_what_is_no_reading_is_not_learnt() -> None:
    """Looking away for an hour and a jump to the end move the belief little."""
    known = PacePosterior().after(PaceSample(tokens=250, active_s=50))
    away = known.after(PaceSample(tokens=0, active_s=3600))
    assert away == known
    jumped = known.after(PaceSample(tokens=2000, active_s=0.2))
    assert jumped.mean_tok_s < 1.1 * known.mean_tok_s
    assert PacePosterior().after(PaceSample(tokens=1e9, active_s=1e9)).mean_tok_s < PACE_TOK_S_MAX


def test_evidence_is_weighed() -> None:
    """Scrolls, dwell and cancellations move the belief, a report moves it most."""
    tracker = ReadingTracker()
    tracker.deliver(200, now=0.0)
    report = tracker.acknowledge(80, now=10.0)
    scroll = tracker.scrolled(160, now=20.0)
    cancel = tracker.cancelled(now=25.0)
    dwell = dwell_sample(200, dwell_s=25.0)
    samples = [report, scroll, dwell, cancel]
    assert all(sample is not None for sample in samples)
    weights = [sample.weight for sample in samples if sample is not None]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == 1
    means = [
        PacePosterior().after(PaceSample(tokens=80, active_s=10, weight=weight)).mean_tok_s
        for weight in weights
    ]
    assert means == sorted(means, reverse=True)
    assert min(means) > 5


def test_unlikely_evidence_is_left_out() -> None:
    """Nobody reads 500 tokens in a second, nor ten in an hour."""
    assert dwell_sample(500, dwell_s=1.0) is None
    assert dwell_sample(10, dwell_s=3600.0) is None
    assert dwell_sample(0, dwell_s=3.0) is None
    stopped_unread = ReadingTracker()
    stopped_unread.deliver(400, now=0.0)
    assert stopped_unread.cancelled(now=10.0) is None


def test_at_the_end_of_the_text_nothing_is_learnt() -> None:
    """Who has read all of it may have been waiting for any time."""
    tracker = ReadingTracker()
    tracker.deliver(10, now=0.0)
    assert tracker.acknowledge(5, now=1.0) is not None
    assert tracker.acknowledge(10, now=60.0) is None
    assert tracker.acknowledge(4, now=61.0) is None


def test_calibration_finds_the_population() -> None:
    """Mean and spread over users within 15 and 40 %, of 200 users with lumpy reports."""
    rng = Random("calibration")
    samples: dict[str, list[PaceSample]] = {}
    for user in range(200):
        pace_tok_s = rng.gammavariate(8.0, 6.0 / 8.0)
        samples[str(user)] = [
            PaceSample(tokens=max(0.0, rng.gauss(pace_tok_s * 10, (6 * pace_tok_s * 10) ** 0.5)),
                       active_s=10.0)
            for _ in range(12)
        ]  # fmt: skip
    samples["brief"] = [PaceSample(tokens=5, active_s=1)]
    found = calibrate(samples)
    assert found.population.mean_tok_s == pytest.approx(6, rel=0.15)
    assert found.population.shape == pytest.approx(8, rel=0.4)
    assert found.population.dispersion == pytest.approx(6, rel=0.2)
    assert (found.users, found.users_left_out) == (200, 1)
    mean_tok_s = replay(samples["0"], found.population).mean_tok_s
    assert mean_tok_s == pytest.approx(sum(s.tokens for s in samples["0"]) / 120, rel=0.15)


def test_calibration_needs_users() -> None:
    """From four nothing is said."""
    with pytest.raises(TooFewUsersError):
        calibrate({str(user): [READ_A_LOT] for user in range(4)})


@pytest.mark.parametrize("shape", [0.5, float("nan"), float("inf")])
def test_a_population_is_checked(shape: float) -> None:
    """A spread without a most likely pace is refused."""
    with pytest.raises(ValueError, match="shape"):
        Population(shape=shape)
