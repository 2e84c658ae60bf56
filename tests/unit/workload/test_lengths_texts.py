"""Lengths as written on the command line."""

from __future__ import annotations

import pytest

from readahead.workload.lengths import FixedLength, LognormalLength, parse_lengths


def test_both_forms() -> None:
    """A number, or a lognormal with its parameters in any order."""
    assert parse_lengths("128") == FixedLength(tokens=128)
    assert parse_lengths("lognormal:sigma=0.8,median=200,max=2048") == LognormalLength(
        median_tokens=200, sigma=0.8, tokens_max=2048
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no length"),
        ("0", "within 1"),
        ("-3", "within 1"),
        ("99999999", "within 1"),
        ("many", "no length"),
        ("normal:median=3", "no distribution is called 'normal'"),
        ("lognormal:", "not name=value"),
        ("lognormal:median=3", "needs sigma="),
        ("lognormal:median=3,sigma=1,mode=2", "has no 'mode'"),
        ("lognormal:median=0,sigma=1", "median"),
        ("lognormal:median=nan,sigma=1", "median"),
        ("lognormal:median=9,sigma=-1", "sigma"),
        ("lognormal:median=9,sigma=1,max=3", "max"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, complaint: str) -> None:
    """The message says what was wrong."""
    with pytest.raises(ValueError, match=complaint):
        parse_lengths(text)
