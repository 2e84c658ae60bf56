"""Laws of idle time: the formula against a reader who is played through."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_reader import GAPS_S, PACES_TOK_S, random_timeline, read, timeline

from readahead.core.reading.clock import ReadingClock
from readahead.core.reading.curves import Origin, ReadingCurve
from readahead.core.reading.idle import idle_s
from readahead.core.reading.timeline import Outcome, Timeline

TIMELINES = 10_000


def test_formula_is_what_a_played_reader_waits() -> None:
    """On ten thousand timelines, with paces and offsets at random, to a billionth of a second."""
    random = Random("idle")
    stalls = 0
    for _ in range(TIMELINES):
        one = random_timeline(random)
        pace_tok_s, offset_s = random.uniform(0.5, 20), random.choice([0.0, random.uniform(0, 3)])
        reading = read(
            one.token_times_s,
            pace_tok_s=pace_tok_s,
            ready_s=one.arrival_s + offset_s + 1 / pace_tok_s,
        )
        curve = ReadingCurve(pace_tok_s=pace_tok_s, offset_s=offset_s)
        assert idle_s(one, curve) == pytest.approx(reading.idle_s, abs=1e-9)
        stalls += reading.idle_s > 0
    assert 0.2 * TIMELINES < stalls < 0.95 * TIMELINES  # neither case is rare


@settings(max_examples=300)
@given(GAPS_S, PACES_TOK_S, st.floats(0, 3))
def test_from_the_first_token_likewise(
    gaps_s: list[float], pace_tok_s: float, offset_s: float
) -> None:
    """A reader who starts with the first token, an offset after it came."""
    one = timeline(gaps_s)
    curve = ReadingCurve(pace_tok_s=pace_tok_s, offset_s=offset_s, origin=Origin.FIRST_TOKEN)
    reading = read(
        one.token_times_s, pace_tok_s=pace_tok_s, ready_s=one.token_times_s[0] + offset_s
    )
    assert idle_s(one, curve) == pytest.approx(reading.idle_s, abs=1e-9)


@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 9)), min_size=1, max_size=40),
    PACES_TOK_S,
    st.floats(0, 2),
    st.sampled_from(Origin),
)
def test_clock_equals_the_formula(
    deliveries: list[tuple[float, int]], pace_tok_s: float, offset_s: float, origin: Origin
) -> None:
    """After each delivery, the clock has counted what the formula finds in the log so far."""
    commit_s = 50.0 if origin is Origin.COMMIT else None
    clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=commit_s, offset_s=offset_s)
    curve = ReadingCurve(pace_tok_s=pace_tok_s, offset_s=offset_s, origin=origin)
    now, times_s, waited_s = 50.0, [], 0.0
    for gap_s, tokens in deliveries:
        now += gap_s
        waited_s += clock.deliver(tokens, now=now)
        times_s += [now] * tokens
        one = Timeline(request_id="r", arrival_s=50.0, token_times_s=times_s)
        assert clock.idle_s(now) == pytest.approx(idle_s(one, curve), abs=1e-9)
        assert waited_s == pytest.approx(clock.idle_s(now), abs=1e-9)
        due_s = curve.next_due_s(one) + idle_s(one, curve)
        assert clock.deadline_s == pytest.approx(due_s, abs=1e-9)
        assert clock.delivered == len(times_s)


@settings(max_examples=500)
@given(GAPS_S, PACES_TOK_S, st.data(), st.floats(0, 5))
def test_delay_never_helps(
    gaps_s: list[float], pace_tok_s: float, data: st.DataObject, delay_s: float
) -> None:
    """Any token held back, and those after it that it pushes: idle does not fall."""
    one = timeline(gaps_s)
    held = data.draw(st.integers(0, one.tokens - 1))
    times_s = list(one.token_times_s)
    times_s[held] += delay_s
    for i in range(held + 1, one.tokens):
        times_s[i] = max(times_s[i], times_s[i - 1])
    late = replace(one, token_times_s=times_s)
    curve = ReadingCurve(pace_tok_s=pace_tok_s)
    assert idle_s(late, curve) >= idle_s(one, curve)
    cut = replace(one, outcome=Outcome.CANCELLED, ended_s=times_s[-1])
    cut_late = replace(cut, token_times_s=times_s)
    assert idle_s(cut_late, curve, censored=True) >= idle_s(cut, curve, censored=True)
    if held:
        curve = replace(curve, origin=Origin.FIRST_TOKEN)
        assert idle_s(late, curve) >= idle_s(one, curve)


@given(GAPS_S, PACES_TOK_S, PACES_TOK_S, st.sampled_from(Origin))
def test_a_slower_reader_never_waits_longer(
    gaps_s: list[float], one_pace_tok_s: float, other_pace_tok_s: float, origin: Origin
) -> None:
    """On a frozen timeline."""
    one = timeline(gaps_s)
    slower, faster = sorted([one_pace_tok_s, other_pace_tok_s])
    slow_s = idle_s(one, ReadingCurve(pace_tok_s=slower, origin=origin))
    assert slow_s <= idle_s(one, ReadingCurve(pace_tok_s=faster, origin=origin)) + 1e-12


@settings(max_examples=300)
@given(GAPS_S, PACES_TOK_S, st.data(), st.floats(0, 10))
def test_stopping_early_is_no_way_out(
    gaps_s: list[float], pace_tok_s: float, data: st.DataObject, patience_s: float
) -> None:
    """Cut off at any token: literal idle may fall; censored it is at least the wait until then."""
    one = timeline(gaps_s)
    kept = data.draw(st.integers(0, one.tokens - 1))
    next_s = one.token_times_s[kept]
    curve = ReadingCurve(pace_tok_s=pace_tok_s)
    cut = replace(
        one,
        token_times_s=one.token_times_s[:kept],
        outcome=data.draw(st.sampled_from([Outcome.CANCELLED, Outcome.FAILED, Outcome.REJECTED])),
        ended_s=next_s + patience_s,
    )
    so_far = replace(one, token_times_s=one.token_times_s[: kept + 1])
    assert idle_s(cut, curve) <= idle_s(so_far, curve)
    assert idle_s(cut, curve, censored=True) >= idle_s(so_far, curve)
    unended = replace(cut, ended_s=None)
    until_s = next_s + patience_s
    assert idle_s(unended, curve, censored=True, observed_until_s=until_s) == pytest.approx(
        idle_s(cut, curve, censored=True)
    )


@given(GAPS_S, PACES_TOK_S)
def test_censoring_leaves_finished_requests_alone(gaps_s: list[float], pace_tok_s: float) -> None:
    """What came to its own end owes no further token."""
    one, curve = timeline(gaps_s), ReadingCurve(pace_tok_s=pace_tok_s)
    censored_s = idle_s(one, curve, censored=True, observed_until_s=one.last_s + 1000)
    assert censored_s == idle_s(one, curve)


def test_an_answer_without_a_token_waits_to_the_end() -> None:
    """Whatever its outcome says; from the first token, there is no origin to count from."""
    one = Timeline(request_id="r", arrival_s=10.0, token_times_s=[], ended_s=14.0)
    curve = ReadingCurve(pace_tok_s=5)
    assert idle_s(one, curve) == 0
    assert idle_s(one, curve, censored=True) == pytest.approx(3.8)
    unpunished = ReadingCurve(pace_tok_s=5, origin=Origin.FIRST_TOKEN)
    assert idle_s(one, unpunished, censored=True) == 0
