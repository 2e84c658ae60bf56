"""The reading clock against a reader simulated word by word."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from simulated_reader import GAPS_S, PACES_TOK_S, read, timeline

from readahead.core.reading.clock import Edge, ReadingClock

GAPS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 9)), min_size=1, max_size=40)


@settings(max_examples=500)
@given(GAPS, st.floats(0.5, 20))
def test_slack_is_what_a_simulated_reader_has_left(
    deliveries: list[tuple[float, int]], pace_tok_s: float
) -> None:
    """A reader who reads each token for 1/pace, and waits where he has none."""
    clock = ReadingClock(pace_tok_s=pace_tok_s)
    times = list(accumulate(gap for gap, _ in deliveries))
    free_at = 0.0
    for now, (_, tokens) in zip(times, deliveries, strict=True):
        clock.deliver(tokens, now=now)
        for _ in range(tokens):
            free_at = max(free_at, now) + 1 / pace_tok_s
        assert clock.slack_s(now) == pytest.approx(free_at - now, abs=1e-9)


@given(GAPS, st.floats(0.5, 20), st.floats(0.1, 5))
def test_the_stalls_sum_to_the_formula(
    deliveries: list[tuple[float, int]], pace_tok_s: float, delay_s: float
) -> None:
    """All stalls together are max(0, max over tokens of delivery less due time)."""
    clock = ReadingClock(pace_tok_s=pace_tok_s)
    times = [delay_s + at for at in accumulate(gap for gap, _ in deliveries)]
    first = times[0]
    stalls_s, tokens_before, formula_s = 0.0, 0, 0.0
    for now, (_, tokens) in zip(times, deliveries, strict=True):
        if tokens_before:
            stalls_s += max(0.0, -clock.slack_s(now))
        formula_s = max(formula_s, now - (first + tokens_before / pace_tok_s))
        clock.deliver(tokens, now=now)
        tokens_before += tokens
    assert stalls_s == pytest.approx(formula_s, abs=1e-9)


def test_before_any_text_there_is_no_slack() -> None:
    """A reader without text waits already."""
    assert ReadingClock(pace_tok_s=5).slack_s(0.0) < 0


@settings(max_examples=300)
@given(GAPS_S, PACES_TOK_S, st.lists(st.floats(0, 12), min_size=1, max_size=10))
def test_unread_is_what_a_played_reader_has_not_come_to(
    gaps_s: list[float], pace_tok_s: float, looks_s: list[float]
) -> None:
    """Looked at between deliveries, at any time."""
    one = timeline(gaps_s)
    played = read(one.token_times_s, pace_tok_s=pace_tok_s, ready_s=1 / pace_tok_s)
    for look_s in looks_s:
        assume(all(abs(look_s - at) * pace_tok_s > 1e-3 for at in played.begun_s))
        clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=0.0)
        for at in one.token_times_s:
            if at <= look_s:
                clock.deliver(1, now=at)
        assert clock.read_tokens(look_s) == sum(at <= look_s for at in played.begun_s)
        assert clock.read_tokens(look_s) + clock.unread_tokens(look_s) == clock.delivered


DELIVERED = st.lists(st.tuples(st.floats(0, 1), st.integers(1, 9)), min_size=1, max_size=10)


def _delivered(
    deliveries: list[tuple[float, int]], *, pace_tok_s: float, commit_s: float | None
) -> tuple[ReadingClock, float]:
    clock, now = ReadingClock(pace_tok_s=pace_tok_s, commit_s=commit_s), 0.0
    for gap_s, tokens in deliveries:
        now += gap_s
        clock.deliver(tokens, now=now)
    return clock, now


@settings(max_examples=300)
@given(DELIVERED, PACES_TOK_S, st.sampled_from([None, 0.0]), st.data(), st.floats(0, 5))
def test_acknowledgements_correct_the_clock_monotonically(
    deliveries: list[tuple[float, int]],
    pace_tok_s: float,
    commit_s: float | None,
    data: st.DataObject,
    later_s: float,
) -> None:
    """Who reports more has less left; the clock then says what was reported."""
    slacks_s = []
    reports = data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=6))
    for tokens_read in sorted(reports):
        clock, now = _delivered(deliveries, pace_tok_s=pace_tok_s, commit_s=commit_s)
        now += later_s
        waited_s = clock.idle_s(now)
        clock.acknowledge(tokens_read, now=now)
        assert clock.read_tokens(now) == min(tokens_read, clock.delivered)
        assert clock.idle_s(now) <= waited_s
        slacks_s.append(clock.slack_s(now))
    assert slacks_s == sorted(slacks_s, reverse=True)


@settings(max_examples=300)
@given(DELIVERED, PACES_TOK_S, st.floats(0, 5))
def test_a_report_that_agrees_changes_nothing(
    deliveries: list[tuple[float, int]], pace_tok_s: float, later_s: float
) -> None:
    """Nor does one that a later report overtook."""
    clock, now = _delivered(deliveries, pace_tok_s=pace_tok_s, commit_s=0.0)
    now += later_s
    slack_s, read_so_far = clock.slack_s(now), clock.read_tokens(now)
    clock.acknowledge(read_so_far, now=now)
    assert clock.slack_s(now) == pytest.approx(slack_s, abs=1e-5)
    if read_so_far:
        clock.acknowledge(read_so_far - 1, now=now)
        assert clock.slack_s(now) == pytest.approx(slack_s, abs=1e-5)


@settings(max_examples=200)
@given(st.floats(2, 8), st.floats(2, 8), st.floats(0.1, 3))
def test_reports_keep_a_clock_with_a_wrong_pace_within_a_token(
    believed_tok_s: float, pace_tok_s: float, every_s: float
) -> None:
    """Just after each report the unread tokens are right, whatever the believed pace."""
    clock = ReadingClock(pace_tok_s=believed_tok_s)
    clock.deliver(100, now=0.0)
    now = every_s
    while now * pace_tok_s < 90:
        truth = min(100, math.floor(now * pace_tok_s) + 1)
        clock.acknowledge(truth, now=now)
        assert abs(clock.read_tokens(now) - truth) <= 1
        now += every_s


@given(DELIVERED, PACES_TOK_S, PACES_TOK_S, st.floats(0, 2))
def test_a_new_pace_keeps_what_was_read_and_waited(
    deliveries: list[tuple[float, int]], pace_tok_s: float, other_tok_s: float, later_s: float
) -> None:
    """It changes how long the rest lasts, and nothing else."""
    clock, now = _delivered(deliveries, pace_tok_s=pace_tok_s, commit_s=0.0)
    now += later_s
    ahead_tokens, waited_s = clock.slack_s(now) * pace_tok_s, clock.idle_s(now)
    clock.change_pace(other_tok_s, now=now)
    assert clock.idle_s(now) == pytest.approx(waited_s, abs=1e-9)
    if ahead_tokens > 0:
        assert clock.slack_s(now) * other_tok_s == pytest.approx(ahead_tokens, abs=1e-6)


def test_edges_alternate_and_name_each_wait() -> None:
    """A reader at 5 tok/s: the first token late, a stall, an end in time."""
    clock = ReadingClock(pace_tok_s=5, commit_s=0.0)
    assert clock.edge(0.1) is None
    assert clock.deadline_s == pytest.approx(0.2)
    assert clock.edge(0.3) is Edge.WENT_IDLE
    assert clock.edge(0.4) is None
    assert clock.idle_s(0.4) == pytest.approx(0.2)
    assert clock.deliver(5, now=0.5) == pytest.approx(0.3)
    assert clock.edge(0.5) is Edge.RESUMED
    assert clock.unread_tokens(0.5) == 4
    assert clock.edge(1.4) is None
    assert clock.edge(1.6) is Edge.WENT_IDLE
    assert clock.deliver(1, now=2.0) == pytest.approx(0.5)
    assert clock.edge(2.1) is Edge.RESUMED
    assert clock.idle_s(2.1) == pytest.approx(0.8)


def test_without_a_commitment_the_first_token_is_never_late() -> None:
    """Before it nobody waits, and the offset comes after it."""
    clock = ReadingClock(pace_tok_s=5, offset_s=1.0)
    assert not clock.is_idle(100)
    assert clock.idle_s(100) == 0
    assert clock.deliver(1, now=100) == 0
    assert clock.deadline_s == pytest.approx(101.2)
    assert clock.deliver(0, now=300) == 0
    assert clock.idle_s(101) == 0


def test_reports_before_any_text_say_nothing() -> None:
    """Neither for a reader with a commitment nor for one without."""
    for commit_s in (None, 0.0):
        clock = ReadingClock(pace_tok_s=5, commit_s=commit_s)
        deadline_s = clock.deadline_s
        clock.acknowledge(7, now=3.0)
        assert clock.deadline_s == deadline_s
        assert clock.read_tokens(3.0) == 0
    clock = ReadingClock(pace_tok_s=5, commit_s=0.0)
    clock.change_pace(10, now=0.0)
    assert clock.deadline_s == pytest.approx(0.1)


def test_a_reader_who_has_not_begun_may_begin_late() -> None:
    """That he has read nothing is no news before his first token is due."""
    clock = ReadingClock(pace_tok_s=5, commit_s=0.0, offset_s=10.0)
    clock.deliver(2, now=1.0)
    clock.acknowledge(0, now=1.0)
    assert clock.deadline_s == pytest.approx(10.6)
