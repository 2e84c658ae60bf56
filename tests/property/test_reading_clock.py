"""The reading clock against a reader simulated word by word."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readahead.core.reading.clock import ReadingClock

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
