"""What the HTTP door makes of bodies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fake_sessions import FakeTokenizer

from readahead.core.errors import ReadaheadError, Reason
from readahead.router.http.chat import read_chat
from readahead.router.http.completions import read_completion
from readahead.router.http.errors import parameter_of
from readahead.router.http.questions import Question
from readahead.router.prompts import Prompts

MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def prompts() -> AsyncIterator[Prompts]:
    prompts = Prompts(FakeTokenizer(), name="tiny", context_tokens_max=4096, vocabulary_tokens=256)
    yield prompts
    prompts.close()


async def completion(prompts: Prompts, **fields: Any) -> tuple[Question, list[int]]:
    question, token_ids = await read_completion(json.dumps(fields).encode(), prompts)
    return question, list(token_ids)


async def chat(prompts: Prompts, **fields: Any) -> tuple[Question, str]:
    body = {"messages": MESSAGES} | fields
    question, token_ids = await read_chat(json.dumps(body).encode(), prompts)
    return question, "".join(map(chr, token_ids))


REFUSED_BY_BOTH: list[tuple[dict[str, Any], Reason, str]] = [
    ({"nonsense": 1}, Reason.INVALID_REQUEST, "nonsense"),
    ({"max_tokens": 0}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": -5}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": 10**12}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": 10**30}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": 1.5}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": "5"}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"max_tokens": True}, Reason.INVALID_REQUEST, "max_tokens"),
    ({"temperature": 2.5}, Reason.INVALID_REQUEST, "temperature"),
    ({"temperature": 10**400}, Reason.INVALID_REQUEST, "temperature"),
    ({"temperature": float("nan")}, Reason.INVALID_REQUEST, "temperature"),
    ({"temperature": float("inf")}, Reason.INVALID_REQUEST, "temperature"),
    ({"top_p": 0}, Reason.INVALID_REQUEST, "top_p"),
    ({"top_k": -1}, Reason.INVALID_REQUEST, "top_k"),
    ({"seed": 2**64}, Reason.INVALID_REQUEST, "seed"),
    ({"stop": ["a", ""]}, Reason.INVALID_REQUEST, "stop"),
    ({"stop": ""}, Reason.INVALID_REQUEST, "stop"),
    ({"stop": [1]}, Reason.INVALID_REQUEST, "stop[0]"),
    ({"stop": {}}, Reason.INVALID_REQUEST, "stop"),
    ({"stream": "yes"}, Reason.INVALID_REQUEST, "stream"),
    ({"stream_options": {"include_usage": True}}, Reason.INVALID_REQUEST, "stream_options"),
    (
        {"stream": True, "stream_options": {"x": 1}},
        Reason.INVALID_REQUEST,
        "stream_options.x",
    ),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        Reason.UNSUPPORTED,
        "stream_options.include_obfuscation",
    ),
    ({"user": "x" * 129}, Reason.INVALID_REQUEST, "user"),
    ({"model": 7}, Reason.INVALID_REQUEST, "model"),
    ({"readahead": {"pace_tok_s": 0}}, Reason.INVALID_REQUEST, "readahead.pace_tok_s"),
    ({"readahead": {"pace_tok_s": -3}}, Reason.INVALID_REQUEST, "readahead.pace_tok_s"),
    ({"readahead": {"pace_tok_s": 10**6}}, Reason.INVALID_REQUEST, "readahead.pace_tok_s"),
    ({"readahead": {"pase": 5}}, Reason.INVALID_REQUEST, "readahead.pase"),
    ({"n": 2}, Reason.UNSUPPORTED, "n"),
    ({"logit_bias": {"5": 1}}, Reason.UNSUPPORTED, "logit_bias"),
]


@pytest.mark.parametrize(("fields", "reason", "parameter"), REFUSED_BY_BOTH)
async def test_both_forms_refuse(
    prompts: Prompts, fields: dict[str, Any], reason: Reason, parameter: str
) -> None:
    """A shared field that is wrong is refused by its name in either form."""
    with pytest.raises(ReadaheadError) as in_completion:
        await completion(prompts, prompt="x", **fields)
    with pytest.raises(ReadaheadError) as in_chat:
        await chat(prompts, **fields)
    for caught in (in_completion, in_chat):
        assert (caught.value.reason, caught.value.parameter) == (reason, parameter)
        assert parameter.split(".")[-1] in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason", "parameter"),
    [
        ({}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": None}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": ""}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": []}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [""]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [[]]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": 5}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [1, "a"]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [True]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [1.0]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [-1]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": [256]}, Reason.INVALID_REQUEST, "prompt"),
        ({"prompt": ["a", "b"]}, Reason.UNSUPPORTED, "prompt"),
        ({"prompt": [[1], [2]]}, Reason.UNSUPPORTED, "prompt"),
        ({"prompt": [1] * 4097}, Reason.CONTEXT_TOO_LONG, "prompt"),
        ({"prompt": "x" * 4097}, Reason.CONTEXT_TOO_LONG, "prompt"),
        ({"prompt": "x", "best_of": 2}, Reason.UNSUPPORTED, "best_of"),
        ({"prompt": "x", "echo": True}, Reason.UNSUPPORTED, "echo"),
        ({"prompt": "x", "suffix": "y"}, Reason.UNSUPPORTED, "suffix"),
        ({"prompt": "x", "logprobs": 1}, Reason.UNSUPPORTED, "logprobs"),
        ({"prompt": "x", "messages": []}, Reason.INVALID_REQUEST, "messages"),
        ({"prompt": "x", "min_tokens": 17}, Reason.INVALID_REQUEST, "min_tokens"),
    ],
)
async def test_completion_refuses(
    prompts: Prompts, fields: dict[str, Any], reason: Reason, parameter: str
) -> None:
    """What completions cannot do is refused by name."""
    with pytest.raises(ReadaheadError) as caught:
        await completion(prompts, **fields)
    assert (caught.value.reason, caught.value.parameter) == (reason, parameter)


@pytest.mark.parametrize("prompt", ["hi", ["hi"]])
async def test_completion_text(prompts: Prompts, prompt: Any) -> None:
    """One text, alone or as a list of one."""
    question, token_ids = await completion(prompts, prompt=prompt, n=1, echo=False, suffix=None)
    assert token_ids == [1, 104, 105]
    assert question.sampling.max_tokens == 16
    assert not question.is_stream


@pytest.mark.parametrize("prompt", [[104, 255], [[104, 255]]])
async def test_completion_token_ids(prompts: Prompts, prompt: Any) -> None:
    """Token ids are taken as they are."""
    assert (await completion(prompts, prompt=prompt))[1] == [104, 255]


@pytest.mark.parametrize(
    ("fields", "reason", "parameter"),
    [
        ({"messages": []}, Reason.INVALID_REQUEST, "messages"),
        ({"messages": "hi"}, Reason.INVALID_REQUEST, "messages"),
        (
            {"messages": [{"role": "user", "content": "x" * 4097}]},
            Reason.CONTEXT_TOO_LONG,
            "messages",
        ),
        ({"messages": None}, Reason.INVALID_REQUEST, "messages"),
        ({"messages": [{"role": "user"}]}, Reason.INVALID_REQUEST, "messages[0].content"),
        ({"messages": [{"content": "x"}]}, Reason.INVALID_REQUEST, "messages[0].role"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            Reason.INVALID_REQUEST,
            "messages[0].role",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "mood": 1}]},
            Reason.INVALID_REQUEST,
            "messages[0].mood",
        ),
        (
            {"messages": [{"role": "user", "content": []}]},
            Reason.INVALID_REQUEST,
            "messages[0].content",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            Reason.UNSUPPORTED,
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            Reason.INVALID_REQUEST,
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": ["x"]}]},
            Reason.INVALID_REQUEST,
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
            Reason.UNSUPPORTED,
            "messages[0].tool_calls",
        ),
        ({"max_completion_tokens": 0}, Reason.INVALID_REQUEST, "max_completion_tokens"),
        ({"tools": [{}]}, Reason.UNSUPPORTED, "tools"),
        ({"tool_choice": "required"}, Reason.UNSUPPORTED, "tool_choice"),
        ({"functions": [{}]}, Reason.UNSUPPORTED, "functions"),
        ({"response_format": {"type": "json_object"}}, Reason.UNSUPPORTED, "response_format"),
        ({"logprobs": True}, Reason.UNSUPPORTED, "logprobs"),
        ({"top_logprobs": 3}, Reason.UNSUPPORTED, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, Reason.UNSUPPORTED, "modalities"),
        ({"audio": {"voice": "x"}}, Reason.UNSUPPORTED, "audio"),
        ({"prediction": {}}, Reason.UNSUPPORTED, "prediction"),
        ({"reasoning_effort": "high"}, Reason.UNSUPPORTED, "reasoning_effort"),
        ({"store": True}, Reason.UNSUPPORTED, "store"),
        ({"service_tier": "priority"}, Reason.UNSUPPORTED, "service_tier"),
        ({"prompt": "x"}, Reason.INVALID_REQUEST, "prompt"),
    ],
)
async def test_chat_refuses(
    prompts: Prompts, fields: dict[str, Any], reason: Reason, parameter: str
) -> None:
    """What chat cannot do is refused by name."""
    with pytest.raises(ReadaheadError) as caught:
        await chat(prompts, **fields)
    assert (caught.value.reason, caught.value.parameter) == (reason, parameter)


async def test_chat_takes_what_asks_for_nothing(prompts: Prompts) -> None:
    """Clients that spell out defaults, or send nulls, are served."""
    nulls = dict.fromkeys(("tools", "stop", "seed", "user", "audio", "store", "stream_options"))
    question, _ = await chat(
        prompts,
        n=1,
        logprobs=False,
        tools=[],
        tool_choice="none",
        response_format={"type": "text"},
        modalities=["text"],
        service_tier="auto",
        **{name: value for name, value in nulls.items() if name != "tools"},
    )
    assert question.sampling.max_tokens is None


async def test_chat_renders_all_roles(prompts: Prompts) -> None:
    """Text parts are joined by line breaks; an answer sent back as it came is a turn."""
    messages = [
        {"role": "system", "content": "be"},
        {"role": "developer", "content": "brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": None, "tool_calls": None, "audio": None},
        {"role": "tool", "content": "d", "tool_call_id": "1"},
    ]
    _, text = await chat(prompts, messages=messages)
    assert text == "system:be;developer:brief;user:a\nb;assistant:c;tool:d;"


async def test_max_completion_tokens_counts(prompts: Prompts) -> None:
    """OpenAI's present name wins over its old one."""
    question, _ = await chat(prompts, max_tokens=5, max_completion_tokens=7)
    assert question.sampling.max_tokens == 7


async def test_unknown_field_in_openai_words(prompts: Prompts) -> None:
    """The message is OpenAI's own."""
    with pytest.raises(ReadaheadError) as caught:
        await chat(prompts, frequncy_penalty=1)
    assert caught.value.message == "Unrecognized request argument supplied: frequncy_penalty"


def test_parameter_paths() -> None:
    """Locations are written as paths."""
    assert parameter_of(("messages", 0, "content", 2, "type")) == "messages[0].content[2].type"
    assert parameter_of(()) == ""
