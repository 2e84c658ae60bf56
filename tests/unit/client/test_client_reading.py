"""The steady reader."""

from __future__ import annotations

import pytest

from readahead.client.reading import ReadingBuffer


def test_the_reader_waits_and_goes_on_where_he_stopped() -> None:
    """Read never exceeds delivered, and a stall is not caught up."""
    buffer = ReadingBuffer(5.0)
    buffer.deliver(1, now=10.0)
    assert buffer.tokens_read(10.1) == pytest.approx(0.5)
    assert buffer.tokens_read(20.0) == 1.0
    buffer.deliver(10, now=20.0)
    assert buffer.tokens_read(21.0) == pytest.approx(6.0)
    assert buffer.slack_s(21.0) == pytest.approx(1.0)
    assert buffer.slack_s(30.0) == 0.0


def test_who_asks_waits_from_then_on() -> None:
    """The first token is due 1/pace later; waits are kept, and end with the answer."""
    buffer = ReadingBuffer(5.0, asked_at_s=10.0)
    assert buffer.idle_s(10.1) == 0.0
    assert buffer.idle_s(11.2) == pytest.approx(1.0)
    buffer.deliver(2, now=11.7)
    assert (buffer.unread_tokens(11.7), buffer.unread_tokens(11.95)) == (1, 0)
    assert buffer.idle_s(12.1) == pytest.approx(1.5)
    buffer.deliver(1, now=13.1)
    assert [stall.duration_s for stall in buffer.stalls] == pytest.approx([1.5, 1.0])
    buffer.end(is_complete=True, now=13.2)
    assert buffer.idle_s(99.0) == pytest.approx(2.5)


@pytest.mark.parametrize(("is_complete", "idle_s"), [(True, 0.0), (False, 3.0)])
def test_who_reads_an_answer_that_broke_off_has_waited_until_then(
    is_complete: bool, idle_s: float
) -> None:
    """One token, read by 10.4; the end comes at 13.4."""
    buffer = ReadingBuffer(5.0, asked_at_s=10.0)
    buffer.deliver(1, now=10.1)
    buffer.end(is_complete=is_complete, now=13.4)
    buffer.end(is_complete=False, now=20.0)
    assert buffer.idle_s(30.0) == pytest.approx(idle_s)


@pytest.mark.parametrize("pace_tok_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_pace_is_positive_and_finite(pace_tok_s: float) -> None:
    """Anything else has no reader."""
    with pytest.raises(ValueError, match="pace_tok_s"):
        ReadingBuffer(pace_tok_s)
