"""Bodies of /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.reading.pace import Scenario
from readahead.router import checks
from readahead.router.http.questions import (
    GenerationBody,
    Question,
    Strict,
    parse,
    question,
    refuse_unsupported,
)
from readahead.router.prompts import Prompts

_HARMLESS: Mapping[str, Sequence[object]] = {
    "n": (1,),
    "repetition_penalty": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
_MESSAGE_HARMLESS: Mapping[str, Sequence[object]] = {
    "tool_calls": ([],),
    "function_call": (),
    "audio": (),
    "refusal": (),
    "annotations": ([],),
}


class ChatMessageBody(Strict):
    """One of `messages`. Clients send answers back as they got them, so nulls must pass."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Any = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    refusal: Any = None
    annotations: Any = None


class ChatBody(GenerationBody):
    """POST /v1/chat/completions."""

    messages: list[ChatMessageBody]
    max_completion_tokens: int | None = None
    """OpenAI's present name for `max_tokens`; where both are given, this one counts."""
    top_logprobs: Any = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: Any = None
    functions: Any = None
    function_call: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    web_search_options: Any = None
    store: Any = None
    service_tier: Any = None


async def read_chat(body: bytes, prompts: Prompts) -> tuple[Question, Sequence[int]]:
    """What is asked, and the token ids of the conversation.

    Raises:
        ReadaheadError: INVALID_REQUEST, UNSUPPORTED, CONTEXT_TOO_LONG, OVERLOADED.
    """
    form = parse(ChatBody, body)
    refuse_unsupported(form, _HARMLESS)
    if form.max_completion_tokens is not None:
        asked = question(
            form,
            prompts,
            max_tokens=form.max_completion_tokens,
            max_tokens_name="max_completion_tokens",
            scenario=Scenario.CHAT,
        )
    else:
        asked = question(form, prompts, max_tokens=form.max_tokens, scenario=Scenario.CHAT)
    if not form.messages:
        raise checks.invalid("messages is empty.", parameter="messages")
    messages = [
        _message(message, f"messages[{index}]") for index, message in enumerate(form.messages)
    ]
    return asked, await prompts.encode_chat(messages)


def _message(message: ChatMessageBody, path: str) -> Mapping[str, str]:
    refuse_unsupported(message, _MESSAGE_HARMLESS, prefix=f"{path}.")
    plain = {"role": message.role, "content": _content(message.content, f"{path}.content")}
    if message.name is not None:
        plain["name"] = message.name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _content(content: Any, path: str) -> str:
    """Text of a turn. Parts are joined by line breaks, as vLLM joins them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise checks.invalid(
            f"Invalid value for '{path}': it must be a string or a list of text parts.",
            parameter=path,
        )
    return "\n".join(_part(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part(part: Any, path: str) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise checks.invalid(
            f"Invalid value for '{path}': it must be an object with a 'type'.", parameter=path
        )
    if kind != "text":
        raise ReadaheadError(
            Reason.UNSUPPORTED,
            f"'{path}' is of type '{kind[:64]}'; only 'text' is supported.",
            parameter=f"{path}.type",
        )
    text = part.get("text")
    if not isinstance(text, str):
        raise checks.invalid(
            f"Invalid value for '{path}.text': it must be a string.", parameter=f"{path}.text"
        )
    return text
