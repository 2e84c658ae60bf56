"""What benchmark tools send by default, beside OpenAI's own fields."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fake_sessions import MODEL
from http_door import check_error, exchange, open_door, post

ASKS: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": MODEL, "prompt": "hi"},
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
}


@pytest.mark.parametrize("path", ASKS)
async def test_each_frame_tells_its_tokens_where_it_is_asked_to(path: str) -> None:
    """vLLM's continuous_usage_stats: counts so far, so that a frame of several is told apart."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    async with open_door() as door:
        body = ASKS[path] | {"stream": True, "stream_options": options}
        answer = await exchange(door, post(path, body))
    assert answer.status == 200
    frames = answer.body.decode().split("\n\n")[:-2]
    counts = [json.loads(frame.removeprefix("data: "))["usage"] for frame in frames]
    outputs = [each["completion_tokens"] for each in counts]
    assert outputs == sorted(outputs)
    assert outputs[-1] == 2
    assert {1, 2} <= set(outputs)
    assert {each["prompt_tokens"] for each in counts} == {counts[0]["prompt_tokens"]}


@pytest.mark.parametrize("path", ASKS)
async def test_a_repetition_penalty_of_one_asks_for_nothing(path: str) -> None:
    """Some tools always send it; any other value would be dropped in silence, so it is refused."""
    async with open_door() as door:
        answer = await exchange(door, post(path, ASKS[path] | {"repetition_penalty": 1.0}))
        assert answer.status == 200
        refused = await exchange(door, post(path, ASKS[path] | {"repetition_penalty": 1.1}))
    check_error(refused, 501, code="unsupported", parameter="repetition_penalty")
