"""Virtual time has one order."""

from __future__ import annotations

from functools import partial

import pytest

from readahead.sim.kernel import Kernel


def test_actions_run_by_time_then_by_order_of_making() -> None:
    kernel = Kernel()
    seen: list[tuple[float, str]] = []

    def note(name: str) -> None:
        seen.append((kernel.now_s, name))

    for name, at_s in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
        kernel.at(at_s, partial(note, name))
    kernel.run()
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]
    assert kernel.done == 4


def test_a_cancelled_action_does_not_run() -> None:
    kernel, seen = Kernel(), []
    appointment = kernel.at(1.0, lambda: seen.append("never"))
    kernel.at(0.5, lambda: kernel.cancel(appointment))
    kernel.run()
    assert seen == []
    assert kernel.now_s == 0.5


def test_an_action_may_make_others_for_the_same_moment() -> None:
    kernel, seen = Kernel(), []
    kernel.at(1.0, lambda: kernel.at(1.0, lambda: seen.append("inner")))
    kernel.at(1.0, lambda: seen.append("outer"))
    kernel.run()
    assert seen == ["outer", "inner"]


def test_the_run_stops_in_time_and_goes_on_from_there() -> None:
    kernel = Kernel()
    seen: list[float] = []
    for at_s in (1.0, 2.0, 3.0):
        kernel.at(at_s, partial(seen.append, at_s))
    kernel.run(until_s=2.0)
    assert seen == [1.0, 2.0]
    assert kernel.now_s == 2.0
    kernel.run()
    assert seen == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("at_s", [0.5, float("nan"), float("inf")])
def test_the_past_and_no_time_at_all_are_refused(at_s: float) -> None:
    kernel = Kernel()
    kernel.at(1.0, lambda: None)
    kernel.run()
    with pytest.raises(ValueError, match="at_s must be finite and >= 1"):
        kernel.at(at_s, lambda: None)
