"""When to try again, and when not to."""

from __future__ import annotations

import random
from dataclasses import dataclass

from readahead.client.errors import ReadaheadClientError


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a refused request is tried again. Nothing is, once an answer has begun."""

    retries_max: int = 2
    """0: never. Two more tries ride out a worker's restart without multiplying an overload;
    the same default as the SDKs of OpenAI and Anthropic."""
    delay_s_min: float = 0.25
    """Before the first retry, where the server gives no hint; doubled for each one after."""
    delay_s_max: float = 8.0
    """Cap of that doubling."""
    hint_s_max: float = 60.0
    """A server that asks for a longer wait than this is not waited for: the caller is told."""

    def __post_init__(self) -> None:
        if self.retries_max < 0:
            raise ValueError(f"retries_max must be at least 0, got {self.retries_max}")
        if not 0 <= self.delay_s_min <= self.delay_s_max:
            raise ValueError("0 <= delay_s_min <= delay_s_max must hold")


def should_retry(error: ReadaheadClientError, *, retries_done: int, policy: RetryPolicy) -> bool:
    """Another try is allowed and may help."""
    if retries_done >= policy.retries_max or not error.is_retryable:
        return False
    return error.retry_after_s is None or error.retry_after_s <= policy.hint_s_max


def delay_s(
    error: ReadaheadClientError, *, retries_done: int, policy: RetryPolicy, rng: random.Random
) -> float:
    """Seconds to wait before the next try.

    The server's hint is a least wait: up to a tenth is added, so that those refused together
    do not return together. Without a hint the wait doubles, and is drawn from its upper half.
    """
    if error.retry_after_s is not None:
        return error.retry_after_s * (1.0 + 0.1 * rng.random())
    backoff_s = min(policy.delay_s_max, policy.delay_s_min * 2.0**retries_done)
    return backoff_s * (0.5 + 0.5 * rng.random())


class Attempts:
    """The tries of one call: how many, how long, and what is left of the time limit."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        rng: random.Random,
        timeout_s: float | None,
        now: float,
    ) -> None:
        self._policy = policy
        self._rng = rng
        self._deadline = None if timeout_s is None else now + timeout_s
        self.retries_done = 0

    def remaining_s(self, now: float) -> float | None:
        """Seconds until the time limit, at least 0. None: there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - now)

    def next_delay_s(self, error: ReadaheadClientError, *, now: float) -> float | None:
        """Seconds to wait before the next try; None if the error is the caller's to handle."""
        if not should_retry(error, retries_done=self.retries_done, policy=self._policy):
            return None
        wait_s = delay_s(error, retries_done=self.retries_done, policy=self._policy, rng=self._rng)
        remaining_s = self.remaining_s(now)
        if remaining_s is not None and wait_s >= remaining_s:
            return None
        self.retries_done += 1
        return wait_s
