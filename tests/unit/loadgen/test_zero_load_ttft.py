"""The time to the first token of an idle system: as given, and as fitted."""

from __future__ import annotations

import pytest

from readahead.loadgen.load_promises import fit_zero_load_ttft
from readahead.ruler.promises import parse_zero_load_ttft


@pytest.mark.parametrize(
    ("text", "base_s", "per_token_s"),
    [
        ("0.02+0.0001*tokens", 0.02, 0.0001),
        (" 0.02 + 1e-4 * tokens ", 0.02, 1e-4),
        ("0.05", 0.05, 0.0),
    ],
)
def test_as_given(text: str, base_s: float, per_token_s: float) -> None:
    found = parse_zero_load_ttft(text)
    assert (found.base_s, found.per_token_s) == (base_s, per_token_s)
    assert found.of(1000) == pytest.approx(base_s + 1000 * per_token_s)


@pytest.mark.parametrize("text", ["", "fast", "0.02+tokens", "0.02*0.1", "1+2*words"])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is as"):
        parse_zero_load_ttft(text)


@pytest.mark.parametrize("text", ["0", "-1", "0.1+-1e-3*tokens", "inf"])
def test_no_negative_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"TTFT|must be"):
        parse_zero_load_ttft(text)


def test_the_fit_finds_a_line() -> None:
    found = fit_zero_load_ttft([(n, 0.03 + 2e-4 * n) for n in (10, 100, 100, 1000)])
    assert found.base_s == pytest.approx(0.03)
    assert found.per_token_s == pytest.approx(2e-4)
    assert "4 requests alone" in found.origin


def test_the_fit_has_no_negative_part() -> None:
    falling = fit_zero_load_ttft([(10, 0.2), (1000, 0.1)])
    assert falling.base_s == pytest.approx(0.15)
    assert falling.per_token_s == 0.0
    steep = fit_zero_load_ttft([(100, 0.001), (200, 0.1)])
    assert steep.base_s == 0.0
    assert steep.per_token_s > 0


def test_one_length_is_a_constant() -> None:
    found = fit_zero_load_ttft([(50, 0.1), (50, 0.2)])
    assert found.base_s == pytest.approx(0.15)
    assert found.per_token_s == 0.0


def test_nothing_to_fit() -> None:
    with pytest.raises(ValueError, match="no request"):
        fit_zero_load_ttft([])
