"""The HTTP door byte for byte: what it sends, what it refuses, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fake_sessions import MODEL, FakeSessions, FakeTokenizer
from http_door import LIMIT_S, check_error, exchange, get, open_door, post, raw_client

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import Decision, Explanation
from readahead.core.request import FinishReason, RequestId, Stage, WorkerId
from readahead.router.config import DoorsConfig

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": MODEL, "prompt": "hi"}
TALK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


async def test_chat_stream_frame_by_frame() -> None:
    """A chat stream is exactly OpenAI's: role, text, finish, usage, end mark."""
    async with open_door() as door:
        body = TALK | {"stream": True, "stream_options": {"include_usage": True}}
        answer = await exchange(door, post(CHAT, body, "x-request-id: r1"))
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"] == "r1"
    assert answer.headers["x-readahead-engine"] == "emulated"
    frames = answer.body.decode().split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(frame.removeprefix("data: ")) for frame in frames[:-2]]
    created = parsed[0]["created"]
    head = {
        "id": "chatcmpl-r1",
        "object": "chat.completion.chunk",
        "created": created,
        "model": MODEL,
    }

    def frame(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], "usage": None}

    counts = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10}
    assert parsed == [
        frame({"role": "assistant", "content": ""}),
        frame({"content": "Hello"}),
        frame({"content": " world"}),
        frame({}, "stop"),
        {**head, "choices": [], "usage": counts},
    ]


async def test_completion_stream_without_usage() -> None:
    """Without include_usage no frame mentions usage."""
    async with open_door() as door:
        answer = await exchange(door, post(COMPLETIONS, ASK | {"stream": True}))
    assert b"usage" not in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")


async def test_stream_that_fails_has_no_end_mark() -> None:
    """An error frame is the last one: [DONE] means complete."""
    async with open_door() as door:
        door.sessions.script = ("a", ReadaheadError(Reason.STREAM_BROKEN, "Lost."))
        answer = await exchange(door, post(COMPLETIONS, ASK | {"stream": True}))
    assert answer.status == 200
    assert b"[DONE]" not in answer.body
    last = json.loads(answer.body.split(b"data: ")[-1])
    assert last["error"]["code"] == "stream_broken"


async def test_bug_is_told_without_details() -> None:
    """An exception of ours is a 500 that says nothing of its cause, and a request id."""
    async with open_door() as door:
        door.sessions.refusals.append(RuntimeError("secret"))
        answer = await exchange(door, post(COMPLETIONS, ASK))
    check_error(answer, 500, code="bug")
    assert b"secret" not in answer.body


async def test_request_id_of_the_client() -> None:
    """A usable X-Request-Id is taken; one that is not is replaced."""
    async with open_door() as door:
        taken = await exchange(door, post(COMPLETIONS, ASK, "x-request-id: A.b_c-1"))
        replaced = await exchange(door, post(COMPLETIONS, ASK, "x-request-id: a/b"))
    assert taken.headers["x-request-id"] == "a.b_c-1"  # the test's reader lowers headers
    assert taken.json()["id"] == "cmpl-A.b_c-1"
    assert replaced.status == 200
    assert len(replaced.headers["x-request-id"]) == 32


async def test_health() -> None:
    """503 names what is missing until a model can be served."""
    async with open_door() as door:
        ready = await get(door, "/health")
        door.sessions.served = ()
        missing = await get(door, "/health")
        models = await get(door, "/v1/models")
    assert (ready.status, ready.json()) == (200, {"status": "ok", "models": [MODEL]})
    assert missing.status == 503
    assert missing.json()["missing"] == ["workers"]
    assert models.json() == {"object": "list", "data": []}


async def test_metrics() -> None:
    """The process's metrics are there in Prometheus' form."""
    async with open_door() as door:
        answer = await get(door, "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"# HELP" in answer.body


async def test_explain() -> None:
    """Decisions come with times since the arrival, by request id or by completion id."""
    decision = Decision(
        at=103.5, kind="decode", worker_id=WorkerId("d0"), reason="Least loaded.",
        costs={WorkerId("d0"): 1.0},
    )  # fmt: skip
    explanation = Explanation(
        request_id=RequestId("r1"),
        stage=Stage.DECODING,
        arrived_at=101.0,
        tokens_delivered=4,
        tokens_read=2,
        decisions=(decision,),
    )
    async with open_door() as door:
        door.sessions.explanations["r1"] = explanation
        answer = await get(door, "/v1/readahead/requests/r1")
        same = await get(door, "/v1/readahead/requests/chatcmpl-r1")
        unknown = await get(door, "/v1/readahead/requests/r2")
    assert answer.json() == same.json()
    assert answer.json() == {
        "request_id": "r1",
        "stage": "decoding",
        "tokens_delivered": 4,
        "tokens_read": 2,
        "decisions": [
            {
                "at_s": 2.5,
                "kind": "decode",
                "worker_id": "d0",
                "reason": "Least loaded.",
                "costs": {"d0": 1.0},
                "slack_s": None,
            }
        ],
    }
    check_error(unknown, 404, code="request_not_found", parameter="request_id")


async def test_reading_report() -> None:
    """A reader's progress reaches the session; odd counts and unknown ids are refused."""
    async with open_door() as door:
        await exchange(door, post(COMPLETIONS, ASK, "x-request-id: r1"))
        path = "/v1/readahead/requests/{}/reading"
        taken = await exchange(door, post(path.format("r1"), {"tokens_read": 3}))
        also = await exchange(door, post(path.format("cmpl-r1"), {"tokens_read": 4}))
        unknown = await exchange(door, post(path.format("r2"), {"tokens_read": 3}))
        negative = await exchange(door, post(path.format("r1"), {"tokens_read": -1}))
        missing = await exchange(door, post(path.format("r1"), {}))
        assert door.sessions.readings == [("r1", 3), ("r1", 4)]
    assert (taken.status, also.status, taken.body) == (204, 204, b"")
    check_error(unknown, 404, code="request_not_found", parameter="request_id")
    check_error(negative, 400, parameter="tokens_read")
    check_error(missing, 400, parameter="tokens_read")


async def test_unknown_path_and_wrong_method() -> None:
    """404 and 405 are error objects too; 405 says what is allowed."""
    async with open_door() as door:
        unknown = await get(door, "/v1/embeddings")
        slash = await get(door, "/v1/models/")
        wrong = await get(door, COMPLETIONS)
        delete = await get(door, "/health", method="DELETE")
    check_error(unknown, 404)
    assert slash.status == 404
    assert "POST" in check_error(wrong, 405)["message"]
    assert wrong.headers["allow"] == "post"
    check_error(delete, 405)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": "tiny",}', b"\xff\xfe", b"[" * 10_000, b'{"prompt": "\\ud800"}'],
)
async def test_malformed_json(body: bytes) -> None:
    """What does not parse is a 400 that says so."""
    async with open_door() as door:
        answer = await exchange(door, post(COMPLETIONS, body))
        assert door.sessions.calls == 0
    assert "could not parse the JSON body" in check_error(answer, 400)["message"]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"prompt"', b"7"])
async def test_body_is_not_an_object(body: bytes) -> None:
    """JSON of another kind is a 400."""
    async with open_door() as door:
        answer = await exchange(door, post(COMPLETIONS, body))
    assert "must be a JSON object" in check_error(answer, 400)["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_content_type(kind: str) -> None:
    """Only JSON is taken; what a browser sends unasked is not."""
    async with open_door() as door:
        refused = await exchange(door, post(COMPLETIONS, ASK, f"content-type: {kind}"))
        taken = await exchange(
            door, post(COMPLETIONS, ASK, "Content-Type: Application/JSON; charset=utf-8")
        )
    check_error(refused, 415)
    assert taken.status == 200


async def test_too_many_requests() -> None:
    """The door holds `requests_max` requests; the next is told to come back."""
    doors = DoorsConfig(http_port=0, requests_max=1)
    async with open_door(doors=doors) as door, raw_client(door) as client:
        door.sessions.script = ()
        await client.send(post(COMPLETIONS, ASK))
        async with asyncio.timeout(LIMIT_S):
            session = await door.sessions.wait_opened()
        refused = await exchange(door, post(COMPLETIONS, ASK))
        session.push("x", FinishReason.STOP)
        assert (await client.answer()).status == 200
        door.sessions.script = ("x", FinishReason.STOP)
        assert (await exchange(door, post(COMPLETIONS, ASK))).status == 200
    check_error(refused, 429, code="overloaded")
    assert refused.headers["retry-after-ms"] == "1000"


async def test_connection_is_kept() -> None:
    """Answers and errors leave the connection open for the next request."""
    async with open_door() as door, raw_client(door) as client:
        for body, status in ((ASK, 200), (b"{", 400), (ASK | {"stream": True}, 200)):
            await client.send(post(COMPLETIONS, body))
            assert (await client.answer()).status == status


async def test_pipelined_requests() -> None:
    """Two requests in one write are answered in order."""
    async with open_door() as door, raw_client(door) as client:
        await client.send(post(COMPLETIONS, ASK) + post(CHAT, TALK))
        assert (await client.answer()).json()["object"] == "text_completion"
        assert (await client.answer()).json()["object"] == "chat.completion"


async def test_no_model_is_named() -> None:
    """Without `model` the one that is served answers; another is not found."""
    async with open_door() as door:
        unnamed = await exchange(door, post(COMPLETIONS, {"prompt": "x"}))
        other = await exchange(door, post(COMPLETIONS, ASK | {"model": "gpt"}))
    assert unnamed.json()["model"] == MODEL
    check_error(other, 404, code="model_not_found", parameter="model")


async def test_no_chat_template() -> None:
    """A model without a chat template does completions only, and says so."""
    async with open_door(tokenizer=FakeTokenizer(chat_template=None)) as door:
        answer = await exchange(door, post(CHAT, TALK))
    check_error(answer, 501, code="unsupported", parameter="messages")


async def test_stop_ends_what_runs() -> None:
    """At shutdown a stream whose session is ended gets its error frame."""
    sessions = FakeSessions()
    async with open_door(sessions) as door, raw_client(door) as client:
        sessions.script = ("one",)
        await client.send(post(COMPLETIONS, ASK | {"stream": True}))
        async with asyncio.timeout(LIMIT_S):
            await client.reader.readuntil(b"one")
            sessions.last.push(ReadaheadError(Reason.STREAM_BROKEN, "The router stops."))
            await client.reader.readuntil(b"stream_broken")
