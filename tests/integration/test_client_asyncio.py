"""The asyncio client against a scripted server on loopback."""

from __future__ import annotations

import asyncio
import random

import grpc
import pytest
from fake_inference import (
    LIMIT_S,
    Fail,
    FakeInference,
    Gate,
    answer,
    delta,
    finished,
    free_port,
    serving,
    started,
)

from readahead.client import (
    AsyncClient,
    BrokenStreamError,
    CancelledError_,
    DeadlineError,
    Delta,
    FinishReason,
    NotFoundError,
    OverloadedError,
    RetryPolicy,
    Started,
    UnavailableError,
)

QUICK = RetryPolicy(retries_max=2, delay_s_min=0.001, delay_s_max=0.002)
BUSY = Fail(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="OVERLOADED", retry_after_s=0.01)


def connect(address: str) -> AsyncClient:
    return AsyncClient(address, retry=QUICK, rng=random.Random(0))


async def ended(service: FakeInference) -> str:
    """The id of the next request that the server saw its client leave."""
    return await asyncio.to_thread(service.ended.get, timeout=LIMIT_S)


async def test_events_text_and_collect() -> None:
    """The three ways to read an answer agree."""
    service = FakeInference([started(), delta("a", 1, 2), delta(""), delta("b"), finished(4)])
    with serving(service) as address:
        async with connect(address) as client:
            events = [event async for event in client.generate("hi")]
            assert isinstance(events[0], Started)
            assert len(events) == 5
            assert [text async for text in client.generate("hi").text()] == ["a", "b"]
            whole = await client.generate("hi").collect()
    assert (whole.text, whole.token_ids, whole.model) == ("ab", (1, 2, 7, 7), "fake")


async def test_many_streams_share_the_connection() -> None:
    """Answers that run at once do not mix."""
    service = FakeInference()
    service.make_script = lambda request: answer(request.prompt, "!")
    with serving(service) as address:
        async with connect(address) as client, asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(client.generate(str(index)).collect()) for index in range(20)
            ]
    assert [task.result().text for task in running] == [f"{index}!" for index in range(20)]


async def test_a_refusal_is_retried_and_gives_up_in_the_end() -> None:
    """As the blocking client does."""
    service = FakeInference([BUSY], answer("ok"), [BUSY])
    with serving(service) as address:
        async with connect(address) as client:
            assert (await client.generate("hi").collect()).text == "ok"
            with pytest.raises(OverloadedError):
                await client.generate("hi").collect()
    assert len(service.requests) == 2 + 3


async def test_nothing_is_retried_once_the_answer_has_begun() -> None:
    """A connection lost in mid-answer is a broken stream."""
    service = FakeInference([started(), delta("a"), Fail(code=grpc.StatusCode.UNAVAILABLE)])
    with serving(service) as address:
        async with connect(address) as client:
            with pytest.raises(BrokenStreamError):
                await client.generate("hi").collect()
    assert len(service.requests) == 1


async def test_a_stream_without_its_end_is_broken() -> None:
    """OK without the last event is no answer."""
    with serving(FakeInference([started(), delta("a")])) as address:
        async with connect(address) as client:
            stream = client.generate("hi")
            with pytest.raises(BrokenStreamError):
                await stream.collect()
            assert [event async for event in stream] == []


async def test_cancel_ends_the_request_and_the_iteration() -> None:
    """The caller's own cancel is no error, and a task that reads on is not cancelled by it."""
    service = FakeInference([started(), delta("a"), Gate()])
    with serving(service) as address:
        async with connect(address) as client:
            stream = client.generate("hi")
            async for event in stream:
                if isinstance(event, Delta):
                    stream.cancel()
            assert (await stream.collect()).finish_reason is FinishReason.CANCELLED
            assert await ended(service) == stream.request_id


async def test_cancel_wakes_a_reader() -> None:
    """A task that waits for the next token is let go, with what it has."""
    gate = Gate()
    service = FakeInference([started(), gate])
    with serving(service) as address:
        async with connect(address) as client, asyncio.TaskGroup() as tasks:
            stream = client.generate("hi")
            reader = tasks.create_task(stream.collect())
            assert await asyncio.to_thread(gate.reached.wait, LIMIT_S)
            stream.cancel()
        assert reader.result().finish_reason is FinishReason.CANCELLED


async def test_cancelling_the_reading_task_ends_the_request() -> None:
    """Cancellation goes on as such, and reaches the server."""
    gate = Gate()
    service = FakeInference([started(), gate])
    with serving(service) as address:
        async with connect(address) as client, asyncio.TaskGroup() as tasks:
            stream = client.generate("hi")
            reader = tasks.create_task(stream.collect())
            assert await asyncio.to_thread(gate.reached.wait, LIMIT_S)
            reader.cancel()
            assert await ended(service) == stream.request_id
        assert reader.cancelled()


async def test_a_timeout_around_the_reader_is_a_timeout() -> None:
    """asyncio.timeout works by cancellation, which must not be taken for our own."""
    service = FakeInference([started(), Gate()])
    with serving(service) as address:
        async with connect(address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.generate("hi").collect()
            await ended(service)


async def test_leaving_the_async_with_block_cancels() -> None:
    """A reader that breaks off does not leave the engine working."""
    service = FakeInference([started(), delta("a"), Gate()])
    with serving(service) as address:
        async with connect(address) as client:
            async with client.generate("hi") as stream:
                async for event in stream:
                    if isinstance(event, Delta):
                        break
            assert await ended(service) == stream.request_id


async def test_closing_the_client_ends_its_answers_with_an_error() -> None:
    """A reader learns that the answer is not whole."""
    gate = Gate()
    service = FakeInference([started(), gate])

    async def read() -> str:
        with pytest.raises(CancelledError_) as caught:
            await client.generate("hi").collect()
        return caught.value.message

    with serving(service) as address:
        client = connect(address)
        async with asyncio.TaskGroup() as tasks:
            reader = tasks.create_task(read())
            assert await asyncio.to_thread(gate.reached.wait, LIMIT_S)
            await client.close()
    assert reader.result() == "the client was closed"


async def test_the_deadline() -> None:
    """timeout_s bounds the answer."""
    with serving(FakeInference([started(), Gate()])) as address:
        async with connect(address) as client:
            with pytest.raises(DeadlineError):
                await client.generate("hi", timeout_s=0.2).collect()


async def test_cancel_during_the_wait_for_a_retry_ends_the_wait() -> None:
    """Nobody waits for a hint of half a minute after having cancelled."""
    service = FakeInference(
        [Fail(code=grpc.StatusCode.UNAVAILABLE, reason="NO_WORKER", retry_after_s=30)]
    )
    with serving(service) as address:
        async with connect(address) as client:
            stream = client.generate("hi")
            asyncio.get_running_loop().call_later(0.05, stream.cancel)
            assert [event async for event in stream] == []


async def test_nobody_there() -> None:
    """An address without a server is a clear error, from each call."""
    async with connect(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(UnavailableError):
            await client.generate("hi").collect()
        with pytest.raises(UnavailableError, match="not ready after"):
            await client.wait_ready(0.3)


async def test_the_other_calls() -> None:
    """Models, explain, cancel, reading reports and readiness."""
    service = FakeInference()
    with serving(service) as address:
        async with connect(address) as client:
            await client.wait_ready(LIMIT_S)
            assert [model.name for model in await client.models()] == ["fake"]
            assert (await client.explain("r1")).decisions[0].kind == "decode"
            await client.cancel("r1")
            stream = client.generate("hi")
            await stream.collect()
            await stream.report_reading(2)
            service.unary_failures = [
                Fail(code=grpc.StatusCode.NOT_FOUND, reason="REQUEST_NOT_FOUND")
            ]
            with pytest.raises(NotFoundError):
                await client.cancel("gone")
    assert service.readings == [(stream.request_id, 2)]
    assert service.cancels == ["r1"]
