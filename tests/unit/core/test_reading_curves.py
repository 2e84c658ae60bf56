"""Due times: each objective is what its textbook says."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest

from readahead.core.reading.curves import (
    Curve,
    EndToEnd,
    Origin,
    ReadingCurve,
    Stage,
    StagedCurve,
    TtftTbt,
    TtftTpot,
)
from readahead.core.reading.timeline import Outcome, Timeline, Window, window

GRID_S = 1 / 64
"""Times on a binary grid are exact, so that a bound may be hit on the dot."""


def _timeline(*times_s: float, arrival_s: float = 0.0) -> Timeline:
    return Timeline(request_id="r", arrival_s=arrival_s, token_times_s=times_s)


def test_at_5_tokens_a_second_token_3_is_due_at_600_ms() -> None:
    """The paper's example, and the same on another clock."""
    assert ReadingCurve(pace_tok_s=5).due_times_s(_timeline(0, 0, 0)) == pytest.approx(
        [0.2, 0.4, 0.6]
    )
    later = _timeline(7, 7, 7, arrival_s=7)
    assert ReadingCurve(pace_tok_s=5).due_times_s(later)[2] == pytest.approx(7.6)


@pytest.mark.parametrize(
    ("curve", "due_times_s", "next_due_s"),
    [
        (ReadingCurve(pace_tok_s=4), [10.25, 10.5, 10.75], 11.0),
        (ReadingCurve(pace_tok_s=4, offset_s=1), [11.25, 11.5, 11.75], 12.0),
        (ReadingCurve(pace_tok_s=4, origin=Origin.FIRST_TOKEN), [10.5, 10.75, 11.0], 11.25),
        (
            ReadingCurve(pace_tok_s=4, offset_s=1, origin=Origin.FIRST_TOKEN),
            [11.5, 11.75, 12.0],
            12.25,
        ),
        (TtftTbt(ttft_s=1, tbt_s=0.5), [11.0, 11.0, 11.25], 12.5),
        (TtftTpot(ttft_s=1, tpot_s=0.5), [11.0, 11.5, 11.5], 12.0),
        (EndToEnd(e2e_s=3), [13.0, 13.0, 13.0], 13.0),
    ],
)
def test_due_times_by_hand(curve: Curve, due_times_s: list[float], next_due_s: float) -> None:
    """A request of time 10 with tokens after 0.5, 0.75 and 2 seconds."""
    one = _timeline(10.5, 10.75, 12.0, arrival_s=10.0)
    assert curve.due_times_s(one) == pytest.approx(due_times_s)
    assert curve.next_due_s(one) == pytest.approx(next_due_s)


@pytest.mark.parametrize(
    ("curve", "next_due_s"),
    [
        (ReadingCurve(pace_tok_s=4), 10.25),
        (ReadingCurve(pace_tok_s=4, origin=Origin.FIRST_TOKEN), float("inf")),
        (TtftTbt(ttft_s=1, tbt_s=0.5), 11.0),
        (TtftTpot(ttft_s=1, tpot_s=0.5), 11.0),
        (EndToEnd(e2e_s=3), 13.0),
        (StagedCurve(ttft_s=1, stages=(Stage(tpot_s=1),), tolerance=0), 11.0),
    ],
)
def test_without_a_token_nothing_is_met(curve: Curve, next_due_s: float) -> None:
    """The first token is due all the same."""
    nothing = _timeline(arrival_s=10.0)
    assert curve.due_times_s(nothing) == []
    assert curve.next_due_s(nothing) == next_due_s
    assert not curve.is_met(nothing)


def test_classical_objectives_are_their_textbook_values() -> None:
    """On a thousand timelines: each is met iff its latencies are within their bounds."""
    random = Random("objectives")
    met = {"tbt": 0, "tpot": 0, "e2e": 0}
    for _ in range(1000):
        ticks, now = [], 0
        for _ in range(random.randrange(1, 12)):
            now += random.randrange(0, 40)
            ticks.append(now)
        one = _timeline(*(tick * GRID_S for tick in ticks))
        ttft_ticks, gap_ticks = random.randrange(1, 60), random.randrange(1, 40)
        ttft_s, gap_s = ttft_ticks * GRID_S, gap_ticks * GRID_S
        in_time = ticks[0] <= ttft_ticks

        gaps = [later - earlier for earlier, later in pairwise(ticks)]
        tbt = in_time and max(gaps, default=0) <= gap_ticks
        assert TtftTbt(ttft_s=ttft_s, tbt_s=gap_s).is_met(one) == tbt

        tpot = in_time and ticks[-1] - ticks[0] <= gap_ticks * (len(ticks) - 1)
        assert TtftTpot(ttft_s=ttft_s, tpot_s=gap_s).is_met(one) == tpot

        e2e_ticks = random.randrange(1, 300)
        e2e = ticks[-1] <= e2e_ticks
        assert EndToEnd(e2e_s=e2e_ticks * GRID_S).is_met(one) == e2e

        met["tbt"] += tbt
        met["tpot"] += tpot
        met["e2e"] += e2e
    assert all(50 < times < 950 for times in met.values()), met


REASONING = StagedCurve(
    ttft_s=1.0, stages=(Stage(tpot_s=0.05, tokens=4), Stage(tpot_s=0.1)), tolerance=0.0
)


def test_stages_follow_each_other() -> None:
    """Four thinking tokens at 50 ms, then 100 ms: the first answer token still ends a thought."""
    one = _timeline(*[0.5] * 7)
    expected = [1.0, 1.05, 1.10, 1.15, 1.20, 1.30, 1.40]
    assert REASONING.due_times_s(one) == pytest.approx(expected)
    assert REASONING.next_due_s(one) == pytest.approx(1.5)


def test_staged_curve_is_the_reading_curve_with_one_stage() -> None:
    """An early first token earns slack: d_i = TTFT + (i - 1) TPOT."""
    one = _timeline(0.1, 0.2, 0.3)
    staged = StagedCurve(ttft_s=1.2, stages=(Stage(tpot_s=0.2),), tolerance=0.0)
    reading = ReadingCurve(pace_tok_s=5, offset_s=1.0)
    assert staged.due_times_s(one) == pytest.approx(reading.due_times_s(one))


def test_a_late_first_token_moves_what_follows() -> None:
    """Late within the tolerance, it is not held against each later token again."""
    curve = StagedCurve(ttft_s=1.0, stages=(Stage(tpot_s=0.1),), check_every_tokens=1)
    on_base = _timeline(1.04, 1.04 + 0.105, 1.04 + 0.21)
    assert curve.is_met(on_base)
    assert not curve.is_met(_timeline(1.04, 1.04 + 0.105, 1.04 + 0.22))
    assert not curve.is_met(_timeline(1.06, 1.06, 1.06))


def test_staged_curve_looks_at_each_tenth_token_and_the_last() -> None:
    """A token in between may be late, since several come at once."""
    curve = StagedCurve(ttft_s=1.0, stages=(Stage(tpot_s=0.1),), tolerance=0.0)
    due_s = curve.due_times_s(_timeline(*[1.0] * 12))
    for late, is_met in [(5, True), (10, False), (11, True), (12, False), (1, False)]:
        times_s = sorted(t + 0.05 * (i == late) for i, t in enumerate(due_s, start=1))
        if late == 1:
            times_s = [1.05, *times_s[1:]]
        assert curve.is_met(_timeline(*times_s)) is is_met, late


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ReadingCurve(pace_tok_s=0),
        lambda: ReadingCurve(pace_tok_s=float("nan")),
        lambda: ReadingCurve(pace_tok_s=5, offset_s=-1),
        lambda: TtftTbt(ttft_s=1, tbt_s=-1),
        lambda: EndToEnd(e2e_s=0),
        lambda: StagedCurve(ttft_s=1, stages=()),
        lambda: StagedCurve(ttft_s=1, stages=(Stage(tpot_s=1),), check_every_tokens=0),
        lambda: Stage(tpot_s=1, tokens=0),
    ],
)
def test_nonsense_is_refused(wrong: type) -> None:
    """With the field and the bound."""
    with pytest.raises(ValueError, match=r"must"):
        wrong()


def test_a_timeline_ends_normally_or_not() -> None:
    """Without a token, nothing came to its own end."""
    assert _timeline(1.0).ended_normally
    assert not _timeline().ended_normally
    cut = Timeline(
        request_id="r", arrival_s=0, token_times_s=[1.0], outcome=Outcome.CANCELLED, ended_s=3.0
    )
    assert not cut.ended_normally
    assert cut.last_s == 3.0


def test_window_spans_arrivals_and_ends() -> None:
    """From the first arrival to the last thing that is known."""
    late = Timeline(request_id="r", arrival_s=5, token_times_s=[], ended_s=9.0)
    assert window([_timeline(4.0, arrival_s=2.0), late]) == Window(start_s=2.0, end_s=9.0)
    assert window([]) is None
