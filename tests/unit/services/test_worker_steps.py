"""The multiplexer: one message per engine step, bounded whatever the router does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import cast

import pytest

from readahead.core.cluster import WorkerLoad
from readahead.core.request import FinishReason, RequestId
from readahead.services.engine.engine import LegEnd, LegKey, LegOutput
from readahead.services.worker import steps
from readahead.services.worker.steps import StepStream
from readahead.v1 import worker_service_pb2 as pb


def leg(index: int) -> LegKey:
    return RequestId(f"r{index}"), 1


def stream() -> tuple[StepStream, AsyncGenerator[pb.StepsResponse, None]]:
    made = StepStream("router", load=lambda: WorkerLoad(running=1, waiting=2, kv_blocks_free=3))
    return made, cast("AsyncGenerator[pb.StepsResponse, None]", made.messages())


async def test_first_message_comes_at_once() -> None:
    """The first message has number 0, no news and the load."""
    _, messages = stream()
    first = await anext(messages)
    assert (first.sequence, len(first.deltas), first.load.waiting) == (0, 0, 2)
    await messages.aclose()


async def test_news_of_one_pass_is_one_message() -> None:
    """What 64 legs say in one pass of the loop comes in one message, in order."""
    made, messages = stream()
    await anext(messages)
    for index in range(64):
        made.put(leg(index), LegOutput(token_ids=[index], text="x"))
    message = await anext(messages)
    assert [delta.token_ids[0] for delta in message.deltas] == list(range(64))
    assert message.sequence == 1
    await messages.aclose()


async def test_unread_news_is_merged_by_leg() -> None:
    """A router that does not read finds one delta per leg, with all tokens in order."""
    made, messages = stream()
    await anext(messages)
    for step in range(500):
        for index in range(8):
            made.put(leg(index), LegOutput(token_ids=[step], text=f" {step}"))
        await asyncio.sleep(0)
    made.put(leg(0), LegOutput(end=LegEnd(finish_reason=FinishReason.LENGTH)))
    made.close()
    (message,) = [message async for message in messages]
    assert len(message.deltas) == 8
    assert list(message.deltas[0].token_ids) == list(range(500))
    assert message.deltas[0].text == "".join(f" {step}" for step in range(500))
    assert message.deltas[0].HasField("end")


async def test_a_message_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """More tokens than fit in a message come in the next ones; none is lost."""
    monkeypatch.setattr(steps, "MESSAGE_TOKENS_MAX", 10)
    made, messages = stream()
    await anext(messages)
    for index in range(5):
        made.put(leg(index), LegOutput(token_ids=[index] * 4))
    made.close()
    sizes = [[len(delta.token_ids) for delta in m.deltas] async for m in messages]
    assert sizes == [[4, 4], [4, 4], [4]]


async def test_silence_is_broken_by_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without news a message with the load comes each heartbeat."""
    monkeypatch.setattr(steps, "HEARTBEAT_S", 0.01)
    _, messages = stream()
    numbers = [(await anext(messages)).sequence for _ in range(3)]
    assert numbers == [0, 1, 2]
    await messages.aclose()


async def test_a_closed_stream_sends_what_it_has() -> None:
    """Closing flushes; what is put later is dropped."""
    made, messages = stream()
    await anext(messages)
    made.put(leg(0), LegOutput(token_ids=[1]))
    made.close()
    made.put(leg(0), LegOutput(token_ids=[2]))
    rest = [message async for message in messages]
    assert [list(delta.token_ids) for message in rest for delta in message.deltas] == [[1]]
