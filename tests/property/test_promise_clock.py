"""A promise is due, kept and broken as the curve says by which runs are judged."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.promise import Promise, PromiseClock, PromisedStage
from readahead.core.reading.curves import Stage, StagedCurve
from readahead.core.reading.timeline import Timeline

THINK_END = 7
GAPS_S = st.lists(
    st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.3, 2.0]) | st.floats(0, 3), min_size=1, max_size=30
)


@st.composite
def promises(draw: st.DrawFn) -> Promise:
    """Up to three stages that end by a count, and one that does not."""
    ends = draw(st.lists(st.tuples(st.floats(0.01, 1.0), st.integers(1, 8)), max_size=3))
    stages = [PromisedStage(token_s=token_s, tokens=tokens) for token_s, tokens in ends]
    last = PromisedStage(token_s=draw(st.floats(0.01, 1.0)))
    return Promise(first_token_s=draw(st.floats(0.01, 2.0)), stages=(*stages, last))


def curve(promise: Promise) -> StagedCurve:
    """The same, as the ruler has it, looked at in every token."""
    return StagedCurve(
        ttft_s=promise.first_token_s,
        stages=tuple(Stage(tpot_s=each.token_s, tokens=each.tokens) for each in promise.stages),
        check_every_tokens=1,
    )


@given(promise=promises(), gaps_s=GAPS_S, arrived_at=st.floats(0, 1e4))
def test_the_ruler_agrees(promise: Promise, gaps_s: list[float], arrived_at: float) -> None:
    """Token by token: whether it is kept, and by how much the worst one was late."""
    clock = PromiseClock(promise, arrived_at=arrived_at)
    times_s = [arrived_at + sum_s for sum_s in itertools.accumulate(gaps_s)]
    strict = StagedCurve(ttft_s=promise.first_token_s, stages=curve(promise).stages, tolerance=0)
    for made, at_s in enumerate(times_s, 1):
        timeline = Timeline(request_id="r", arrival_s=arrived_at, token_times_s=times_s[:made])
        clock.deliver(1, now=at_s)
        assert clock.is_kept is curve(promise).is_met(timeline)
        due_s = strict.due_times_s(timeline)
        first_late_s = max(0.0, times_s[0] - arrived_at - promise.first_token_s)
        late_s = max(t - d for t, d in zip(times_s[:made], due_s, strict=True))
        if made > 1:  # later ones are judged from the first, wherever that came
            rest_s = max(t - d for t, d in zip(times_s[1:made], due_s[1:], strict=True))
            late_s = first_late_s + max(0.0, rest_s)
        assert clock.late_s == pytest.approx(max(0.0, late_s), abs=1e-6)


@given(promise=promises(), gaps_s=GAPS_S)
def test_a_late_token_moves_the_next_ones(promise: Promise, gaps_s: list[float]) -> None:
    """Each is due its stage's time after the one before was due or came, whichever was later."""
    clock = PromiseClock(promise, arrived_at=0.0)
    now = 0.0
    rates = [each.token_s for each in promise.stages for _ in range(each.tokens or 100)]
    for made, gap_s in enumerate(gaps_s):
        now += gap_s
        due_s = clock.due_s
        assert clock.token_s == rates[made]
        clock.deliver(1, now=now)
        assert clock.due_s == pytest.approx(max(due_s, now) + rates[made])


@given(promise=promises(), bursts=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_tokens_that_come_together_count_one_by_one(promise: Promise, bursts: list[int]) -> None:
    """For what is due next; the judge looks at the last of each delivery."""
    whole, single = (PromiseClock(promise, arrived_at=0.0) for _ in range(2))
    for index, tokens in enumerate(bursts):
        whole.deliver(tokens, now=0.4 * index)
        for _ in range(tokens):
            single.deliver(1, now=0.4 * index)
        assert whole.due_s == pytest.approx(single.due_s)
        assert whole.token_s == single.token_s
        assert whole.late_s == pytest.approx(single.late_s)


@given(
    before=st.integers(0, 12),
    most=st.none() | st.integers(1, 12),
    cut=st.lists(st.integers(1, 5), min_size=1, max_size=20),
)
def test_the_token_that_ends_the_thinking_is_the_last_of_it(
    before: int, most: int | None, cut: list[int]
) -> None:
    """Wherever it stands in what comes at once, unless the count has ended it before."""
    thinking = PromisedStage(token_s=1.0, tokens=most, until_token_id=THINK_END)
    promise = Promise(first_token_s=1.0, stages=(thinking, PromisedStage(token_s=0.125)))
    ids = [1] * before + [THINK_END] + [1] * sum(cut)
    clock = PromiseClock(promise, arrived_at=0.0)
    made = 0
    for tokens in cut:
        clock.deliver(tokens, now=0.0, token_ids=ids[made : made + tokens])
        made += tokens
        thought = min(made, before + 1, math.inf if most is None else most)
        assert clock.due_s == pytest.approx(1.0 + thought + (made - thought) / 8)
        assert clock.wants_ids is (made < min(before + 1, math.inf if most is None else most))


@given(promise=promises(), gaps_s=GAPS_S, moved_to=st.floats(-50, 50), tail_s=GAPS_S)
def test_what_is_left_is_the_same_elsewhere(
    promise: Promise, gaps_s: list[float], moved_to: float, tail_s: list[float]
) -> None:
    """A leg that moves is due there as it was here, whatever its arrival is said to be."""
    here = PromiseClock(promise, arrived_at=0.0)
    now = 0.0
    for gap_s in gaps_s:
        now += gap_s
        here.deliver(1, now=now)
    there = PromiseClock(here.rest(arrived_at=moved_to), arrived_at=moved_to)
    for gap_s in tail_s:
        assert there.due_s == pytest.approx(here.due_s, abs=1e-6)
        assert there.token_s == here.token_s
        now += gap_s
        here.deliver(1, now=now)
        there.deliver(1, now=now)


@pytest.mark.parametrize(
    ("stages", "why"),
    [
        ((), "stages must be 1 to 8"),
        ((PromisedStage(token_s=1.0),) * 2, "must have an end"),
        ((PromisedStage(token_s=1.0, tokens=1),) * 9, "stages must be 1 to 8"),
    ],
)
def test_a_promise_that_cannot_be_is_none(stages: tuple[PromisedStage, ...], why: str) -> None:
    """The last stage alone goes on for ever."""
    with pytest.raises(ValueError, match=why):
        Promise(first_token_s=1.0, stages=stages)


@pytest.mark.parametrize(("slower", "is_kept"), [(1.0, True), (1.04, True), (1.06, False)])
def test_a_twentieth_of_what_was_promised_is_tolerated(slower: float, is_kept: bool) -> None:
    """Of the first token's time, and of the time of those after it."""
    promise = Promise(first_token_s=10.0, stages=(PromisedStage(token_s=1.0),))
    first = PromiseClock(promise, arrived_at=5.0)
    first.deliver(1, now=5.0 + 10.0 * slower)
    assert first.is_kept is is_kept
    later = PromiseClock(promise, arrived_at=5.0)
    later.deliver(1, now=15.0)
    for made in range(1, 20):
        later.deliver(1, now=15.0 + made * slower)
    assert later.is_kept is is_kept
