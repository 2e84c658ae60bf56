"""Timers against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from readahead.core.timers import Timers

KEYS = st.sampled_from("abcdef")
STEPS = st.lists(
    st.tuples(st.just("set"), KEYS, st.floats(0, 100))
    | st.tuples(st.just("cancel"), KEYS, st.just(0.0))
    | st.tuples(st.just("pop"), st.just(""), st.floats(0, 100)),
    max_size=400,
)


@given(STEPS)
def test_timers_agree_with_a_dictionary(steps: list[tuple[str, str, float]]) -> None:
    """What is due, and when the next one is, never depends on cancelled or moved entries."""
    timers: Timers[str] = Timers()
    expected: dict[str, float] = {}
    for action, key, at in steps:
        if action == "set":
            timers.set(key, at)
            expected[key] = at
        elif action == "cancel":
            timers.cancel(key)
            expected.pop(key, None)
        else:
            due = timers.pop_due(at)
            assert [expected[each] for each in due] == sorted(expected[each] for each in due)
            assert set(due) == {each for each, when in expected.items() if when <= at}
            expected = {each: when for each, when in expected.items() if when > at}
        assert timers.next_at() == min(expected.values(), default=None)
        assert len(timers) == len(expected)
        assert all(each in timers for each in expected)


def test_moved_timers_do_not_pile_up() -> None:
    """Memory follows the number of keys, not the number of moves."""
    timers: Timers[str] = Timers()
    for moved in range(10_000):
        timers.set("only", float(moved))
    assert len(timers._heap) < 200


def test_ties_keep_the_order_of_setting() -> None:
    """A total order, so that a replay gives the same commands."""
    timers: Timers[str] = Timers()
    for key in "zyx":
        timers.set(key, 1.0)
    assert timers.pop_due(1.0) == ["z", "y", "x"]
