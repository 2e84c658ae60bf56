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


@pytest.mark.parametrize("pace_tok_s", [0.0, -1.0, float("inf"), float("nan")])
def test_a_pace_is_positive_and_finite(pace_tok_s: float) -> None:
    """Anything else has no reader."""
    with pytest.raises(ValueError, match="pace_tok_s"):
        ReadingBuffer(pace_tok_s)
