"""The stock OpenAI client is a peer: it talks to the HTTP door as it talks to OpenAI."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from fake_sessions import MODEL
from http_door import Door, open_door

from readahead.core.errors import REASONS, ReadaheadError, Reason
from readahead.core.request import FinishReason

MESSAGES: Any = [{"role": "user", "content": "hi"}]


def sync_client(door: Door, **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=door.base_url, api_key="none", **options)


def async_client(door: Door, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=door.base_url, api_key="none", **options)


async def test_openai_chat_whole() -> None:
    """A chat answer in one piece has its text, counts and ids."""
    async with open_door() as door, async_client(door) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 2)
    assert answer.usage.total_tokens == 10
    assert answer.object == "chat.completion"
    assert answer.id == f"chatcmpl-{door.sessions.last.request_id}"
    assert answer._request_id == door.sessions.last.request_id


async def test_openai_chat_stream() -> None:
    """A chat stream has the role first, then text, the finish reason, the counts."""
    async with open_door() as door, async_client(door) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert "".join(delta.content or "" for delta in deltas) == "Hello world"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, None, "stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1


async def test_openai_chat_stream_helper() -> None:
    """The client's own accumulator is content with the frames."""
    async with open_door() as door, async_client(door) as client:
        async with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
            answer = await stream.get_final_completion()
        asked = door.sessions.last.call
    assert answer.choices[0].message.content == "Hello world"
    assert asked.prompt_token_ids == [*map(ord, "user:hi;")]


async def test_openai_completion_whole() -> None:
    """A plain completion in one piece; the prompt gets the tokenizer's special tokens."""
    async with open_door() as door, async_client(door) as client:
        answer = await client.completions.create(model=MODEL, prompt="hi")
        call = door.sessions.last.call
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id == f"cmpl-{call.request_id}"
    assert call.prompt_token_ids == [1, ord("h"), ord("i")]
    assert call.sampling.max_tokens == 16


async def test_openai_completion_stream() -> None:
    """A plain completion's frames add up to its text."""
    async with open_door() as door, async_client(door) as client:
        door.sessions.script = ("a", "", "é\n", "🙂", FinishReason.LENGTH)
        stream = await client.completions.create(model=MODEL, prompt=[104, 105], stream=True)
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "aé\n🙂"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert door.sessions.last.call.prompt_token_ids == [104, 105]


async def test_openai_sync_client() -> None:
    """The synchronous client, whole and streaming."""

    def ask(door: Door) -> tuple[str | None, str]:
        with sync_client(door) as client:
            whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
            stream = client.completions.create(model=MODEL, prompt="x", stream=True)
            text = "".join(chunk.choices[0].text for chunk in stream)
            return whole.choices[0].message.content, text

    async with open_door() as door:
        assert await asyncio.to_thread(ask, door) == ("Hello world", "Hello world")


async def test_openai_settings_arrive() -> None:
    """What the caller sets is what the session gets."""
    async with open_door() as door, async_client(door) as client:
        await client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            max_completion_tokens=9,
            temperature=0.5,
            top_p=0.9,
            presence_penalty=0.1,
            frequency_penalty=-0.2,
            seed=-4,
            stop=["a", "b"],
            user="u1",
            n=1,
            logprobs=False,
            response_format={"type": "text"},
            extra_body={
                "top_k": 3,
                "min_tokens": 2,
                "ignore_eos": True,
                "readahead": {"pace_tok_s": 7.5},
            },
            extra_headers={
                "X-Request-Id": "mine-1",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "x-request-timeout-s": "12.5",
            },
        )
        call = door.sessions.last.call
    sampling = call.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 0.9)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.1, -0.2)
    assert (sampling.seed, sampling.stop, sampling.top_k) == (-4, ("a", "b"), 3)
    assert (sampling.min_tokens, sampling.ignore_eos) == (2, True)
    assert (call.request_id, call.user_id, call.pace_tok_s) == ("mine-1", "u1", 7.5)
    assert (call.timeout_s, call.door) == (12.5, "http")
    assert list(call.trace_headers) == ["traceparent"]


async def test_openai_models() -> None:
    """Models can be listed and looked up; one that is not there is not found."""
    async with open_door() as door, async_client(door) as client:
        listed = [model.id async for model in client.models.list()]
        found = await client.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("some/other")
    assert listed == [MODEL]
    assert found.owned_by == "readahead"
    assert caught.value.code == "model_not_found"


EXPECTED_ERRORS: dict[Reason, type[openai.APIStatusError]] = {
    Reason.INVALID_REQUEST: openai.BadRequestError,
    Reason.CONTEXT_TOO_LONG: openai.BadRequestError,
    Reason.UNAUTHENTICATED: openai.AuthenticationError,
    Reason.FORBIDDEN: openai.PermissionDeniedError,
    Reason.MODEL_NOT_FOUND: openai.NotFoundError,
    Reason.REQUEST_NOT_FOUND: openai.NotFoundError,
    Reason.QUOTA_EXCEEDED: openai.RateLimitError,
    Reason.OVERLOADED: openai.RateLimitError,
    Reason.NO_WORKER: openai.InternalServerError,
    Reason.WORKER_LOST: openai.InternalServerError,
    Reason.STREAM_BROKEN: openai.InternalServerError,
    Reason.KV_EXPIRED: openai.InternalServerError,
    Reason.STALE_INCARNATION: openai.InternalServerError,
    Reason.DEADLINE_EXCEEDED: openai.InternalServerError,
    Reason.CANCELLED: openai.APIStatusError,
    Reason.ENGINE_FAILED: openai.InternalServerError,
    Reason.UNSUPPORTED: openai.InternalServerError,
    Reason.BUG: openai.InternalServerError,
}


@pytest.mark.parametrize("reason", Reason)
async def test_openai_every_reason(reason: Reason) -> None:
    """Each reason comes out as its class, status, type and code, at `open` and before text."""
    async with open_door() as door, async_client(door, max_retries=0) as client:
        door.sessions.refusals.append(ReadaheadError(reason, "No.", parameter="prompt"))
        door.sessions.script = (ReadaheadError(reason, "No.", parameter="prompt"),)
        for is_stream in (False, True):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.completions.create(model=MODEL, prompt="x", stream=is_stream)
            error = caught.value
            spec = REASONS[reason]
            assert type(error) is EXPECTED_ERRORS[reason]
            assert error.status_code == spec.http_status
            assert (error.type, error.code) == (spec.openai_type, reason.lower())
            assert error.param == "prompt"
            assert error.body == {
                "message": "No.",
                "type": spec.openai_type,
                "param": "prompt",
                "code": reason.lower(),
            }
            assert error.request_id
            assert error.response.headers["x-should-retry"] == str(spec.is_retryable).lower()


@pytest.mark.parametrize("reason", Reason)
async def test_openai_every_reason_in_midstream(reason: Reason) -> None:
    """After text has come an error is a frame, on which the client raises."""
    async with open_door() as door, async_client(door) as client:
        door.sessions.script = ("Hel", ReadaheadError(reason, "Broken."))
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        chunks = aiter(stream)
        texts = [(await anext(chunks)).choices[0].delta.content for _ in range(2)]
        with pytest.raises(openai.APIError, match=r"Broken\.") as caught:
            await anext(chunks)
    assert texts == ["", "Hel"]
    assert caught.value.code == reason.lower()
    assert caught.value.type == REASONS[reason].openai_type


class Delays:
    """Takes the place of the client's sleep."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slept_s: list[float] = []
        monkeypatch.setattr("openai._base_client.anyio.sleep", self._sleep)

    async def _sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> Delays:
    return Delays(monkeypatch)


async def test_openai_retry_honours_our_delay(delays: Delays) -> None:
    """The client waits as long as `retry-after-ms` says, and then gets its answer."""
    async with open_door() as door, async_client(door, max_retries=2) as client:
        for retry_after_s in (0.0315, 2.0):
            door.sessions.refusals.append(
                ReadaheadError(Reason.OVERLOADED, "Full.", retry_after_s=retry_after_s)
            )
        answer = await client.completions.create(model=MODEL, prompt="x")
    assert answer.choices[0].text == "Hello world"
    assert delays.slept_s == [0.032, 2.0]
    assert door.sessions.calls == 3


async def test_openai_does_not_retry_against_our_word(delays: Delays) -> None:
    """A 500 that says x-should-retry: false is not tried again, although 500s are by default."""
    async with open_door() as door, async_client(door, max_retries=2) as client:
        door.sessions.refusals.append(ReadaheadError(Reason.ENGINE_FAILED, "Broken."))
        with pytest.raises(openai.InternalServerError):
            await client.completions.create(model=MODEL, prompt="x")
    assert (delays.slept_s, door.sessions.calls) == ([], 1)


async def test_openai_rate_limit_has_retry_headers() -> None:
    """A rejection names its delay in both forms; whole seconds are rounded up."""
    async with open_door() as door, async_client(door, max_retries=0) as client:
        door.sessions.refusals.append(
            ReadaheadError(Reason.OVERLOADED, "Full.", retry_after_s=1.25)
        )
        with pytest.raises(openai.RateLimitError) as caught:
            await client.completions.create(model=MODEL, prompt="x")
    headers = caught.value.response.headers
    assert (headers["retry-after-ms"], headers["retry-after"]) == ("1250", "2")
    assert headers["x-should-retry"] == "true"


async def test_openai_closing_a_stream_cancels() -> None:
    """Leaving a stream early ends the request."""
    async with open_door() as door, async_client(door) as client:
        door.sessions.script = ("one",)
        stream = await client.completions.create(model=MODEL, prompt="x", stream=True)
        assert (await anext(aiter(stream))).choices[0].text == "one"
        await stream.close()
        async with asyncio.timeout(5):
            await door.sessions.last.cancelled.wait()


async def test_openai_timeout_cancels() -> None:
    """A client that gives up waiting for a whole answer ends the request."""
    async with open_door() as door, async_client(door, max_retries=0, timeout=0.3) as client:
        door.sessions.script = ()
        with pytest.raises(openai.APITimeoutError):
            await client.completions.create(model=MODEL, prompt="x")
        async with asyncio.timeout(5):
            await door.sessions.last.cancelled.wait()
