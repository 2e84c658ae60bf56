"""Answers in OpenAI's shapes: frames of a stream, and whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

from readahead.core.errors import ReadaheadError
from readahead.core.messages import ReadingState, SloState
from readahead.core.promise import Verdict
from readahead.core.request import RequestId
from readahead.router.http.errors import error_body
from readahead.router.sessions import Finish

DONE = b"data: [DONE]\n\n"
"""Ends a complete answer. A stream that ends without it has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What all frames of one answer repeat."""

    request_id: RequestId
    model: str
    created_s: int
    """Seconds since the epoch."""
    has_usage: bool
    """Whether a stream ends with a frame of token counts; the others then say `usage: null`."""
    running_prompt_tokens: int | None = None
    """Length of the prompt, where each frame is to say how many tokens there are so far."""
    has_reading: bool = False
    """Whether the token counts go with the reader's state."""


class Shape(Protocol):
    """One of OpenAI's two forms of an answer."""

    def opening(self) -> bytes:
        """What a stream starts with."""
        ...

    def delta(self, text: str, output_tokens: int) -> bytes:
        """The frame of new text, with which there are so many tokens.

        Called for every frame, so made of ready parts where it need not tell the tokens.
        """
        ...

    def closing(self, finish: Finish) -> bytes:
        """What a complete stream ends with."""
        ...

    def whole(self, text: str, finish: Finish) -> bytes:
        """The answer in one piece."""
        ...


class ChatShape:
    """chat.completion and chat.completion.chunk."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._head = _head(heading, f"chatcmpl-{heading.request_id}", "chat.completion.chunk")
        self._before, self._after = self._frame({"content": _SLOT}).split(_SLOT_JSON)

    def opening(self) -> bytes:
        """The assistant's role."""
        return self._frame({"role": "assistant", "content": ""})

    def delta(self, text: str, output_tokens: int) -> bytes:
        """A `content` delta."""
        if self._heading.running_prompt_tokens is not None:
            return self._frame({"content": text}, output_tokens=output_tokens)
        return b"%b%b%b" % (self._before, json.dumps(text).encode(), self._after)

    def closing(self, finish: Finish) -> bytes:
        """The finish reason, the counts where they are asked for, the end mark."""
        ending = self._frame(
            {}, finish_reason=finish.reason.value, output_tokens=finish.output_tokens
        )
        return ending + _usage_frame(self._head, self._heading, finish) + DONE

    def whole(self, text: str, finish: Finish) -> bytes:
        """A chat.completion."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish.reason.value,
        }
        head = {**self._head, "object": "chat.completion"}
        return json.dumps({**head, "choices": [choice], **_counts(self._heading, finish)}).encode()

    def _frame(
        self, delta: dict[str, Any], *, finish_reason: str | None = None, output_tokens: int = 0
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return _frame(
            {**self._head, "choices": [choice], **_usage_so_far(self._heading, output_tokens)}
        )


class TextShape:
    """text_completion."""

    def __init__(self, heading: Heading) -> None:
        self._heading = heading
        self._head = _head(heading, f"cmpl-{heading.request_id}", "text_completion")
        self._before, self._after = self._frame(_SLOT).split(_SLOT_JSON)

    def opening(self) -> bytes:
        """Nothing: a plain completion starts with its text."""
        return b""

    def delta(self, text: str, output_tokens: int) -> bytes:
        """A piece of `text`."""
        if self._heading.running_prompt_tokens is not None:
            return self._frame(text, output_tokens=output_tokens)
        return b"%b%b%b" % (self._before, json.dumps(text).encode(), self._after)

    def closing(self, finish: Finish) -> bytes:
        """The finish reason, the counts where they are asked for, the end mark."""
        ending = self._frame(
            "", finish_reason=finish.reason.value, output_tokens=finish.output_tokens
        )
        return ending + _usage_frame(self._head, self._heading, finish) + DONE

    def whole(self, text: str, finish: Finish) -> bytes:
        """A text_completion with its counts."""
        choice = _text_choice(text, finish.reason.value)
        counts = _counts(self._heading, finish)
        return json.dumps({**self._head, "choices": [choice], **counts}).encode()

    def _frame(
        self, text: str, *, finish_reason: str | None = None, output_tokens: int = 0
    ) -> bytes:
        choice = _text_choice(text, finish_reason)
        return _frame(
            {**self._head, "choices": [choice], **_usage_so_far(self._heading, output_tokens)}
        )


def error_frame(error: ReadaheadError) -> bytes:
    """The last frame of a stream that failed; clients of OpenAI raise on it."""
    return b"data: %b\n\n" % error_body(error)


def reading_fields(reading: ReadingState) -> dict[str, Any]:
    """How far the reader is, in JSON."""
    return {
        "pace_tok_s": reading.pace_tok_s,
        "pace_source": reading.pace_source,
        "unread_tokens": reading.unread_tokens,
        "slack_s": round(reading.slack_s, 6),
        "idle_s": round(reading.idle_s, 6),
        "stalls": reading.stalls,
    }


def promise_fields(slo: SloState | None, verdict: Verdict) -> dict[str, Any]:
    """What became of the promise, in JSON; nothing where there is nothing to say."""
    fields: dict[str, Any] = {}
    if verdict is not Verdict.NEW:
        fields["verdict"] = verdict.told
    if slo is not None:
        fields["slo"] = {
            "class": slo.name,
            "ttft_s": round(slo.first_token_s, 6),
            "is_kept": slo.is_kept,
            "late_s": round(slo.late_s, 6),
        }
    return fields


def usage(finish: Finish) -> dict[str, int]:
    """OpenAI's token counts."""
    return _usage(finish.prompt_tokens, finish.output_tokens)


def _usage(prompt_tokens: int, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


_SLOT = "\x00"
"""Stands for the text in a ready frame. Names of models and ids have no control characters."""
_SLOT_JSON = json.dumps(_SLOT).encode()


def _head(heading: Heading, completion_id: str, kind: str) -> dict[str, Any]:
    return {
        "id": completion_id,
        "object": kind,
        "created": heading.created_s,
        "model": heading.model,
    }


def _text_choice(text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}


def _usage_so_far(heading: Heading, output_tokens: int) -> dict[str, Any]:
    if heading.running_prompt_tokens is not None:
        return {"usage": _usage(heading.running_prompt_tokens, output_tokens)}
    return {"usage": None} if heading.has_usage else {}


def _usage_frame(head: dict[str, Any], heading: Heading, finish: Finish) -> bytes:
    if not heading.has_usage:
        return b""
    return _frame({**head, "choices": [], **_counts(heading, finish)})


def _counts(heading: Heading, finish: Finish) -> dict[str, Any]:
    if not heading.has_reading or finish.reading is None:
        return {"usage": usage(finish)}
    state = reading_fields(finish.reading) | promise_fields(finish.slo, finish.verdict)
    return {"usage": usage(finish), "readahead": state}


def _frame(content: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(content, separators=(",", ":")).encode()
