"""Outbox: merged, bounded, and not repeating itself."""

from __future__ import annotations

import asyncio

from readahead.core.request import RequestId
from readahead.router.outbox import LegKey, Outbox

A = LegKey(RequestId("a"), 1)
B = LegKey(RequestId("b"), 1)


def test_a_cancel_is_not_repeated_at_once() -> None:
    """News of a cancelled leg keeps coming for a step or two."""
    outbox = Outbox()
    outbox.cancel(A, now=0.0)
    assert outbox.take_cancels(10) == [A]
    outbox.cancel(A, now=0.5)
    assert outbox.take_cancels(10) == []
    outbox.cancel(A, now=1.5)
    assert outbox.take_cancels(10) == [A]


def test_a_release_replaces_the_renewal() -> None:
    """What is to be freed is not kept."""
    outbox = Outbox()
    outbox.renew(A)
    outbox.renew(B)
    outbox.release(A)
    assert outbox.take_renewals(10) == [B]
    assert outbox.take_releases(10) == [A]


def test_the_oldest_are_taken_first_and_no_more_than_asked() -> None:
    """The rest waits."""
    outbox = Outbox()
    keys = [LegKey(RequestId(str(index)), 1) for index in range(5)]
    for key in keys:
        outbox.release(key)
    assert outbox.take_releases(3) == keys[:3]
    assert outbox.take_releases(3) == keys[3:]


async def test_wait_returns_while_something_is_left() -> None:
    """And blocks once all is taken."""
    outbox = Outbox()
    outbox.renew(A)
    outbox.renew(B)
    await outbox.wait()
    outbox.take_renewals(1)
    await outbox.wait()
    outbox.take_renewals(1)
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(outbox.wait())
        await asyncio.sleep(0)
        assert not waiter.done()
        outbox.renew(A)
