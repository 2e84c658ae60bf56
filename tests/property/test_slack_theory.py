"""Order and demand, as docs/explanation/slack.md states them: each rule against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import floor
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_rounds import sequence
from slot_world import (
    Served,
    SlotReader,
    least_total_idle_s,
    least_worst_idle_s,
    play,
)

from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.readers import decode_entries
from readahead.core.reading.clock import ReadingClock

DRAWN = 300
"""Instances of the counts that the page gives."""
EPSILON_S = 1e-9


def original(served: Served) -> float:
    return served.original_due_s


def shifted(served: Served) -> float:
    return served.shifted_due_s


def worst_idle_s(served: Sequence[Served]) -> float:
    return max(each.idle_s for each in served)


# Quarters of a second and paces that are powers of two: due times are exact, so that a token due
# at the very end of a slot is in time.
def readers(
    *, arrives: st.SearchStrategy[int], paces: Sequence[float], most: int
) -> st.SearchStrategy[list[SlotReader]]:
    return st.lists(
        st.builds(
            SlotReader,
            arrives=arrives,
            tokens=st.integers(1, 3),
            pace_tok_s=st.sampled_from(paces),
            offset_s=st.integers(0, 12).map(lambda quarters: quarters / 4),
        ),
        min_size=1,
        max_size=most,
    )


@settings(max_examples=150, deadline=None)
@given(readers(arrives=st.integers(0, 4), paces=[0.25, 0.5, 1, 2, 4], most=4))
def test_first_due_first_has_the_least_worst_wait(drawn: list[SlotReader]) -> None:
    """One place, whoever comes whenever: no order of tokens lets the worst off reader wait less."""
    ours_s = worst_idle_s(play(drawn, places=1, urgency=original))
    assert ours_s == pytest.approx(least_worst_idle_s(drawn, places=1), abs=EPSILON_S)


@settings(max_examples=150, deadline=None)
@given(readers(arrives=st.integers(-4, 0), paces=[0.25, 0.5, 1], most=4), st.integers(1, 3))
def test_so_it_has_in_batches_of_those_who_are_there(drawn: list[SlotReader], places: int) -> None:
    """Of readers no faster than one token in an iteration, as long as nobody else comes."""
    ours_s = worst_idle_s(play(drawn, places=places, urgency=original))
    assert ours_s == pytest.approx(least_worst_idle_s(drawn, places=places), abs=EPSILON_S)


def test_batches_and_later_arrivals_together_need_foresight() -> None:
    """Two are served first who could have waited a tenth of a second, and then three tokens are due
    in the slot that holds two."""
    drawn = [
        SlotReader(tokens=2, offset_s=0.9),
        SlotReader(tokens=2, offset_s=0.9),
        SlotReader(tokens=2, offset_s=2),
        SlotReader(arrives=3),
        SlotReader(arrives=3),
    ]
    assert worst_idle_s(play(drawn, places=2, urgency=original)) == pytest.approx(1.0)
    assert least_worst_idle_s(drawn, places=2) == pytest.approx(0.1)


@cache
def instances() -> tuple[tuple[SlotReader, ...], ...]:
    """One place and more than it can do in time."""
    random = Random("orders")
    return tuple(
        tuple(
            SlotReader(
                arrives=random.randint(0, 3),
                tokens=random.randint(1, 3),
                pace_tok_s=random.choice([0.25, 0.5, 1]),
            )
            for _ in range(3)
        )
        for _ in range(DRAWN)
    )


def test_by_shifted_due_times_somebody_may_wait_longer() -> None:
    """Waits so far move a reader's due times back, and who has waited is made to wait again."""
    worse = 0
    for drawn in instances():
        ours_s = worst_idle_s(play(drawn, places=1, urgency=original))
        theirs_s = worst_idle_s(play(drawn, places=1, urgency=shifted))
        assert theirs_s >= ours_s - EPSILON_S
        worse += theirs_s > ours_s + EPSILON_S
    assert worse > 0.02 * DRAWN


def test_the_least_total_wait_is_another_goal() -> None:
    """Neither order reaches it always: it gives up who is late anyway, and they do not."""
    missed = {"original": 0, "shifted": 0}
    for drawn in instances():
        least_s = least_total_idle_s(drawn, places=1)
        for name, urgency in (("original", original), ("shifted", shifted)):
            total_s = sum(each.idle_s for each in play(drawn, places=1, urgency=urgency))
            assert total_s >= least_s - EPSILON_S
            missed[name] += total_s > least_s + EPSILON_S
    assert min(missed.values()) > 0.1 * DRAWN


def test_the_engine_goes_by_shifted_due_times() -> None:
    """A batch that cannot hold all who decode takes those with the least slack, waits included."""
    waited, patient = sequence(1, prompt_tokens=4), sequence(2, prompt_tokens=4)
    for one, commit_s, at_s in ((waited, 0.0, 9.0), (patient, 8.0, 8.2)):
        clock = ReadingClock(pace_tok_s=5.0, commit_s=commit_s)
        clock.deliver(1, now=at_s)
        one.reads_until, one.generated = clock.deadline_s, 1
    entries, is_all = decode_entries([waited, patient], WorkSum(), tokens_max=1)
    assert not is_all
    assert [each for each, _ in entries] == [patient]


def demand_tokens(drawn: Sequence[SlotReader], span_s: float) -> int:
    """Tokens that are due within so many seconds: of one with slack s and pace v, the first after
    s, and v for each second more."""
    return sum(
        min(each.tokens, floor(each.pace_tok_s * (span_s - each.due_s(1))) + 1)
        for each in drawn
        if each.due_s(1) <= span_s
    )


def fits(drawn: Sequence[SlotReader], places: int) -> bool:
    """The demand-bound test: at no due time is more due than can have been made."""
    checkpoints_s = {each.due_s(n) for each in drawn for n in range(1, each.tokens + 1)}
    return all(demand_tokens(drawn, at_s) <= places * floor(at_s) for at_s in checkpoints_s)


PROMPTS = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), max_size=2)
"""Tokens, and when the first token is due."""


@settings(max_examples=300, deadline=None)
@given(
    readers(arrives=st.integers(-4, 0), paces=[0.25, 0.5, 1], most=5), PROMPTS, st.integers(1, 3)
)
def test_demand_bound_says_whether_anybody_waits(
    drawn: list[SlotReader], prompts: list[tuple[int, int]], places: int
) -> None:
    """Exactly then can all be served without a wait, and first due first does it."""
    parts = [SlotReader(offset_s=due - 1) for tokens, due in prompts for _ in range(tokens)]
    work = [*drawn, *parts]
    waits_s = worst_idle_s(play(work, places=places, urgency=shifted))
    assert fits(work, places) == (waits_s <= EPSILON_S)


def test_demand_bound_does_not_hold_for_who_reads_faster_than_iterations() -> None:
    """Two tokens are due within one and a half iterations, and one has no place for both."""
    fast = [SlotReader(tokens=2, pace_tok_s=2, offset_s=0.5)]
    assert fits(fast, places=2)
    assert worst_idle_s(play(fast, places=2, urgency=shifted)) == pytest.approx(0.5)
