"""Frames are spaced by what their reader has left to read, and by nothing else."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st
from toy_session import toy_session

from readahead.core.reading.clock import ReadingClock
from readahead.core.request import FinishReason
from readahead.router.frame_gap import SLACK_SHARE, FrameGap
from readahead.runtime.clock import monotonic_s


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 8)), max_size=30))
def test_no_frame_waits_longer_than_its_share_of_the_slack(
    steps: list[tuple[float, int]],
) -> None:
    """A reader who has nothing left, or soon will, gets each token at once."""
    clock = ReadingClock(pace_tok_s=5)
    gap = FrameGap(clock, gap_s_max=0.05)
    now, reads_until = 100.0, 0.0
    for dt, tokens in steps:
        now += dt
        clock.deliver(tokens, now=now)
        reads_until = max(reads_until, now) + tokens / 5
        allowed_s = min(0.05, SLACK_SHARE * (reads_until - now))
        assert gap.wait_s(now) <= max(0.0, allowed_s) + 1e-9
        if gap.wait_s(now) <= 0:
            gap.frame(now)


def test_a_gap_of_zero_never_waits() -> None:
    """One frame per engine step, whatever the reader has left."""
    clock = ReadingClock(pace_tok_s=5)
    gap = FrameGap(clock, gap_s_max=0)
    clock.deliver(1000, now=1.0)
    gap.frame(1.0)
    assert gap.wait_s(1.0) == 0.0


async def test_tokens_share_a_frame_while_the_reader_has_text() -> None:
    """The first frame comes at once, those after it together."""
    session = toy_session(gap_s_max=0.05)
    now = monotonic_s()
    session.push("a " * 50, list(range(50)), wait_s=None, now=now)
    assert len((await session.next_chunk()).token_ids) == 50
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(session.next_chunk())
        await asyncio.sleep(0)
        for n in range(3):
            session.push("b ", [n], wait_s=None, now=monotonic_s())
            await asyncio.sleep(0)
        assert not reader.done()
    assert list(reader.result().token_ids) == [0, 1, 2]


async def test_the_last_frame_never_waits() -> None:
    """Text may be held back for a moment, the end of it may not."""
    session = toy_session(gap_s_max=1.0)
    session.push("a " * 500, list(range(500)), wait_s=None, now=monotonic_s())
    await session.next_chunk()
    started = monotonic_s()
    session.push("b ", [1], wait_s=None, now=started)
    session.finish(FinishReason.STOP, now=started)
    chunk = await session.next_chunk()
    assert chunk.finish is not None
    assert list(chunk.token_ids) == [1]
    assert monotonic_s() - started < 0.5
