"""What all live readers have in common, sampled: who waits, how much text is unread."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Collection

from readahead.router import metrics
from readahead.router.reader import Reader

SAMPLE_S = 1.0
"""Between two samples: Prometheus asks every 10 s or so, and a sample costs some 2 µs a reader."""

READERS_AT_ONCE = 256
"""Readers looked at before others on the loop get their turn: half a millisecond."""


async def sample(readers: Collection[Reader], *, now: Callable[[], float]) -> None:
    """Sets the gauges by one look at each reader, and adds to the histogram of slack."""
    by_slack = [0] * len(metrics.SLACK_LABELS)
    unread_tokens = 0
    for index, reader in enumerate(list(readers)):
        if index % READERS_AT_ONCE == 0 and index:
            await asyncio.sleep(0)
        clock, at = reader.clock, now()
        slack_s = clock.slack_s(at)
        metrics.SLACK.observe(slack_s)
        by_slack[bisect_right(metrics.SLACK_BOUNDS_S, slack_s)] += 1
        unread_tokens += clock.unread_tokens(at)
    metrics.UNREAD_TOKENS.set(unread_tokens)
    metrics.READERS_IDLE.set(by_slack[0])
    for label, count in zip(metrics.SLACK_LABELS, by_slack, strict=True):
        metrics.READERS.labels(label).set(count)
