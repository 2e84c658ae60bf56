"""Pseudo text and stop strings."""

from __future__ import annotations

import pytest

from readahead.services.engine.emulated_text import (
    StopMatcher,
    checksum,
    next_token,
    token_text,
)

TEXT = "one two three"


def push_all(matcher: StopMatcher, text: str, size: int) -> tuple[str, bool]:
    """Feeds a text in pieces; returns what was delivered and whether it was stopped."""
    delivered = ""
    for start in range(0, len(text), size):
        piece, is_stopped = matcher.push(text[start : start + size])
        delivered += piece
        if is_stopped:
            return delivered, True
    return delivered + matcher.flush(), False


@pytest.mark.parametrize("size", [1, 2, 5, 100])
@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        ((), TEXT),
        (("two",), "one "),
        (("three", "o t"), "one tw"),
        (("e", "one"), ""),
        (("threes",), TEXT),
        (("absent", "three!"), TEXT),
    ],
)
def test_text_ends_before_the_first_stop(size: int, stop: tuple[str, ...], expected: str) -> None:
    """Whatever the pieces, text before a stop is delivered, the stop is not, nothing is lost."""
    delivered, is_stopped = push_all(StopMatcher(stop), TEXT, size)
    if size < 100 and stop == ("e", "one"):
        # Both may end it; pieces decide which is complete first.
        assert delivered in ("", "on")
    else:
        assert delivered == expected
    assert is_stopped == (expected != TEXT)


def test_text_is_not_held_back_without_need() -> None:
    """At most the longest stop less one character waits."""
    matcher = StopMatcher(("abcd",))
    assert matcher.push("123456") == ("123", False)
    assert matcher.push("789") == ("456", False)
    assert matcher.flush() == "789"
    assert matcher.flush() == ""


def test_checksum_continues() -> None:
    """The checksum of a whole is that of its parts, one after another."""
    ids = [5, 70_000, 0, 3]
    assert checksum(ids) == checksum(ids[2:], before=checksum(ids[:2]))
    assert checksum(ids) != checksum(ids[::-1])


def test_tokens_stay_in_the_vocabulary() -> None:
    """Every state has a token, and tokens spread over the vocabulary."""
    tokens = {next_token(state * 2_654_435, vocabulary_tokens=2048) for state in range(1600)}
    assert min(tokens) >= 0
    assert max(tokens) < 2048
    assert len(tokens) > 1000


def test_token_text_is_a_word() -> None:
    """Each token of a small vocabulary has its own word."""
    words = {token_text(token_id) for token_id in range(128_000)}
    assert len(words) == 128_000
    assert token_text(0) == " baba"
