"""The SLO table, number by number."""

from __future__ import annotations

import pytest

from readahead.workload.scenarios_slo import SLO_CLASSES, slo_class

TABLE = [
    # name, times the zero-load TTFT, TPOT and thinking TPOT in ms; then the two on large models
    ("chatbot", 5, 100, None, 200, None),
    ("coder", 5, 50, None, 100, None),
    ("summarization", 3, 100, None, 200, None),
    ("reasoning", 3, 100, 50, 200, 100),
    ("tool-loop", 3, 50, None, 100, None),
    ("tool-answer", 3, 100, None, 200, None),
]


@pytest.mark.parametrize(("name", "slowdown", "tpot", "think", "large_tpot", "large_think"), TABLE)
def test_the_table(
    name: str, slowdown: int, tpot: int, think: int | None, large_tpot: int, large_think: int | None
) -> None:
    """As published."""
    for is_large, ms, think_ms in ((False, tpot, think), (True, large_tpot, large_think)):
        slo = slo_class(name, large=is_large)
        assert (slo.ttft_slowdown, slo.tpot_s) == (slowdown, ms / 1000)
        assert slo.think_tpot_s == (None if think_ms is None else think_ms / 1000)
        assert slo.name == (f"{name}-large" if is_large else name)


def test_nothing_else_is_in_it() -> None:
    """But the loose one of the ablation."""
    names = {name for name, *_ in TABLE}
    assert set(SLO_CLASSES) == names | {f"{name}-large" for name in names} | {"loose"}
    assert (slo_class("loose").ttft_slowdown, slo_class("loose").tpot_s) == (5, 0.05)


def test_an_unknown_one_is_refused_with_the_known() -> None:
    """By name."""
    with pytest.raises(ValueError, match="no SLO is called 'loose-large'; known: chatbot, "):
        slo_class("loose", large=True)
