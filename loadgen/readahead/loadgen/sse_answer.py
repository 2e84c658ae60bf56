"""One streamed answer of an OpenAI-compatible server."""

from __future__ import annotations

import json
from typing import Any

from readahead.loadgen.records import Outcome
from readahead.loadgen.senders import Cause, Result
from readahead.loadgen.sse import SseSplitter
from readahead.loadgen.timeline import Timeline

ERROR_CHARACTERS_MAX = 300
"""Of a server's message in a record."""
THINKING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put the text of thinking; there is no standard."""

_PREFIXES = {Cause.SERVER: "STREAM"}
"""What an error begins with, where that is not its cause."""


class SseAnswer:
    """Takes the bytes of an answer as they come."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._splitter = SseSplitter()
        self._prompt_tokens: int | None = None
        self._output_tokens: int | None = None
        self._told_tokens = 0
        self._verdict = ""
        self._tells_tokens = True
        self._result: Result | None = None

    def feed(self, piece: bytes, stamp_s: float) -> bool:
        """A piece of the stream, received at `stamp_s`. True: it was the last.

        Raises:
            ValueError, KeyError, TypeError: it is not of OpenAI's form.
        """
        return any(self._take(data, stamp_s) for data in self._splitter.feed(piece))

    def result(self) -> Result:
        """How it ended."""
        if self._result is not None:
            return self._result
        return self.failed(Cause.CONNECTION, "the stream ended before [DONE]")

    def failed(self, cause: Cause, error: str) -> Result:
        """The request's end, when it is a bad one."""
        return Result(
            outcome=Outcome.FAILED,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            cause=cause,
            error=f"{_PREFIXES.get(cause, cause.upper())}: {error}"[:ERROR_CHARACTERS_MAX],
        )

    def _take(self, data: str, stamp_s: float) -> bool:
        if data == "[DONE]":
            self._result = Result(
                outcome=Outcome.FINISHED,
                prompt_tokens=self._prompt_tokens,
                output_tokens=self._output_tokens,
                verdict=self._verdict,
            )
            return True
        event = json.loads(data)
        if "error" in event:
            self._result = self.failed(Cause.SERVER, error_message(data))
            return True
        choices = event["choices"]
        usage = event.get("usage")
        if isinstance(state := event.get("readahead"), dict):
            self._verdict = str(state.get("verdict", ""))
        text = "".join(map(_text, choices))
        tokens = self._tokens_told(usage) if usage else None
        if text and tokens is None:
            self._tells_tokens = False
        elif not self._tells_tokens:
            tokens = None  # the total, in the last frame of a server that does not tell them all
        # A frame that only counts tokens, whose text is still to come, has been received too.
        if choices and (text or tokens):
            self._timeline.mark(stamp_s, tokens=tokens, text=text)
        return False

    def _tokens_told(self, usage: Any) -> int:
        """Tokens since the last frame that told their number."""
        self._prompt_tokens = self._timeline.prompt_tokens = int(usage["prompt_tokens"])
        self._output_tokens = int(usage["completion_tokens"])
        tokens = max(0, self._output_tokens - self._told_tokens)
        self._told_tokens = max(self._told_tokens, self._output_tokens)
        return tokens


def _text(choice: Any) -> str:
    if "delta" not in choice:
        return str(choice["text"] or "")
    delta = choice["delta"]
    text = delta.get("content")
    if text:
        return str(text)
    for name in THINKING_FIELDS:
        if delta.get(name):
            return str(delta[name])
    return ""


def error_message(body: str) -> str:
    """The message in OpenAI's error object, or the body as it is."""
    try:
        return str(json.loads(body)["error"]["message"])[:ERROR_CHARACTERS_MAX]
    except (ValueError, KeyError, TypeError):
        return body[:ERROR_CHARACTERS_MAX]
