"""LiveSession: what a front door takes is what the relay pushed, and it ends once."""

from __future__ import annotations

import asyncio

import pytest
from toy_session import toy_session

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.request import FinishReason, Leg, RequestId, WorkerId
from readahead.router.sessions import FirstTokenSplit


async def test_news_that_is_not_taken_is_merged() -> None:
    """A slow client gets one larger frame, in order."""
    session = toy_session()
    session.push(" a", [1], wait_s=None, now=1.0)
    session.push(" b", [2, 3], wait_s=None, now=2.0)
    session.finish(FinishReason.STOP, now=3.0)
    chunk = await session.next_chunk()
    assert (chunk.text, list(chunk.token_ids)) == (" a b", [1, 2, 3])
    assert chunk.finish is not None
    assert chunk.finish.output_tokens == 3
    assert session.frames == 1


async def test_text_that_came_before_a_failure_is_given_first() -> None:
    """Then the error is raised, however often it is asked for."""
    session = toy_session()
    session.push(" a", [1], wait_s=None, now=1.0)
    session.fail(ReadaheadError(Reason.STREAM_BROKEN, "gone"), now=2.0)
    assert (await session.next_chunk()).text == " a"
    for _ in range(2):
        with pytest.raises(ReadaheadError, match="gone"):
            await session.next_chunk()


async def test_waiting_reader_is_woken() -> None:
    """By a token, and by the end."""
    session = toy_session()
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(session.next_chunk())
        await asyncio.sleep(0)
        session.push(" a", [1], wait_s=None, now=1.0)
    assert reader.result().text == " a"
    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(session.next_chunk())
        await asyncio.sleep(0)
        session.finish(FinishReason.LENGTH, now=2.0)
    assert reader.result().finish is not None


async def test_it_ends_once() -> None:
    """A second end is our bug; a cancel after the end is nothing."""
    cancelled: list[RequestId] = []
    session = toy_session(on_cancel=cancelled.append)
    session.cancel()
    session.finish(FinishReason.STOP, now=1.0)
    session.cancel()
    assert cancelled == ["r"]
    with pytest.raises(AssertionError, match="ends twice"):
        session.fail(ReadaheadError(Reason.BUG, ""), now=2.0)


async def test_time_to_the_first_token_is_split() -> None:
    """The parts sum to the whole: half a second between the legs was spent in the router too."""
    session = toy_session(arrived_at=10.0)
    session.submitted(Leg.PREFILL, attempt=1, worker_id=WorkerId("p"), now=11.0)
    session.prefilled(b"kv", now=13.0)
    session.submitted(Leg.DECODE, attempt=1, worker_id=WorkerId("d"), now=13.5)
    session.push(" a", [1], wait_s=0.25, now=14.5)
    session.push(" b", [2], wait_s=None, now=15.0)
    assert session.first_token_split() == FirstTokenSplit(
        queue_s=1.5, prefill_s=2.0, transfer_s=0.25, first_decode_s=0.75, total_s=4.5
    )


async def test_parts_that_did_not_occur_are_unset() -> None:
    """A short prompt has neither prefill nor transfer."""
    session = toy_session(arrived_at=10.0)
    session.submitted(Leg.WHOLE, attempt=1, worker_id=WorkerId("d"), now=11.0)
    session.push(" a", [1], wait_s=0.25, now=12.0)
    assert session.first_token_split() == FirstTokenSplit(
        queue_s=1.0, first_decode_s=1.0, total_s=2.0
    )


async def test_a_worker_clock_that_runs_fast_does_not_make_time_negative() -> None:
    """The transfer is at most the whole decode leg."""
    session = toy_session()
    session.submitted(Leg.DECODE, attempt=1, worker_id=WorkerId("d"), now=1.0)
    session.push(" a", [1], wait_s=5.0, now=2.0)
    split = session.first_token_split()
    assert (split.transfer_s, split.first_decode_s) == (1.0, 0.0)
