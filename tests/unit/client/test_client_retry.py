"""When the SDK tries again."""

from __future__ import annotations

import random

import pytest

from readahead.client import RetryPolicy
from readahead.client.errors import InvalidRequestError, OverloadedError
from readahead.client.retry import Attempts, delay_s, should_retry

POLICY = RetryPolicy(retries_max=3, delay_s_min=0.5, delay_s_max=2.0, hint_s_max=60)
BUSY = OverloadedError("OVERLOADED", "busy")


def test_only_retryable_reasons_are_retried_and_only_so_often() -> None:
    """The reason decides, and the number of retries done."""
    wrong = InvalidRequestError("INVALID_REQUEST", "wrong")
    assert not should_retry(wrong, retries_done=0, policy=POLICY)
    assert should_retry(BUSY, retries_done=2, policy=POLICY)
    assert not should_retry(BUSY, retries_done=3, policy=POLICY)


def test_the_wait_doubles_up_to_the_cap() -> None:
    """Each wait is drawn from the upper half of a doubling, capped range."""
    rng = random.Random(1)
    for retries_done, most_s in enumerate([0.5, 1.0, 2.0, 2.0]):
        for _ in range(100):
            wait_s = delay_s(BUSY, retries_done=retries_done, policy=POLICY, rng=rng)
            assert most_s / 2 <= wait_s <= most_s


def test_a_hint_is_the_least_wait() -> None:
    """The server's hint is never undercut, and at most a tenth is added."""
    hinted = OverloadedError("OVERLOADED", "busy", retry_after_s=4.0)
    waits_s = [
        delay_s(hinted, retries_done=0, policy=POLICY, rng=random.Random(s)) for s in range(99)
    ]
    assert min(waits_s) >= 4.0
    assert max(waits_s) <= 4.4


def test_a_hint_that_is_too_long_goes_to_the_caller() -> None:
    """Nobody waits two minutes unasked."""
    hinted = OverloadedError("OVERLOADED", "busy", retry_after_s=120.0)
    assert not should_retry(hinted, retries_done=0, policy=POLICY)


def test_no_retry_reaches_beyond_the_deadline() -> None:
    """A wait that would use up the time limit is not begun."""
    attempts = Attempts(POLICY, rng=random.Random(0), timeout_s=10.0, now=100.0)
    hinted = OverloadedError("OVERLOADED", "busy", retry_after_s=4.0)
    assert attempts.remaining_s(104.0) == 6.0
    assert attempts.next_delay_s(hinted, now=104.0) is not None
    assert attempts.next_delay_s(hinted, now=107.0) is None
    assert attempts.retries_done == 1


@pytest.mark.parametrize(
    "wrong",
    [{"retries_max": -1}, {"delay_s_min": 3.0, "delay_s_max": 1.0}, {"delay_s_min": -1.0}],
)
def test_an_impossible_policy_is_refused(wrong: dict[str, float]) -> None:
    """The numbers must make sense together."""
    with pytest.raises(ValueError, match=r"retries_max|delay_s_min"):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
