"""Sends to an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from readahead.loadgen.records import Outcome
from readahead.loadgen.senders import Result, SendOptions, TargetError
from readahead.loadgen.sse import SseError, SseSplitter
from readahead.loadgen.timeline import Timeline
from readahead.loadgen.workload import PlannedRequest

READY_S_MAX = 5.0
"""Longest wait for the target's first answer."""
REJECTED_STATUSES = frozenset({429, 503})
ERROR_CHARACTERS_MAX = 300
"""Of a server's message in a record."""


class HttpSender:
    """As many connections as requests run at once: the limit is the runner's."""

    def __init__(self, target: str, *, is_chat: bool) -> None:
        self._base = target.rstrip("/").removesuffix("/v1")
        self._is_chat = is_chat
        self._url = f"{self._base}/v1/{'chat/completions' if is_chat else 'completions'}"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),  # ours is around the whole request
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._open_session().close()

    async def models(self) -> Sequence[str]:
        """Names of the models served; empty where the server has no such list."""
        try:
            async with asyncio.timeout(READY_S_MAX):
                async with self._open_session().get(f"{self._base}/v1/models") as response:
                    if response.status in {404, 405}:
                        return []
                    if response.status != 200:
                        raise TargetError(
                            f"{self._base}/v1/models answers {response.status}: "
                            f"{_message(await response.text())}"
                        )
                    return [str(model["id"]) for model in (await response.json())["data"]]
        except TimeoutError as error:
            raise TargetError(f"{self._base} does not answer within {READY_S_MAX:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TargetError(f"{self._base} cannot be reached: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{self._base}/v1/models is not OpenAI's: {error}") from error

    async def send(
        self, request: PlannedRequest, options: SendOptions, timeline: Timeline
    ) -> Result:
        """Sends a request and follows its answer to the end."""
        answer = SseAnswer(timeline)
        try:
            async with asyncio.timeout(options.timeout_s):
                return await self._follow(request, options, answer)
        except TimeoutError:
            return answer.failed(f"TIMEOUT: no end within {options.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return answer.failed(f"CONNECTION: {str(error) or type(error).__name__}")
        except (SseError, ValueError, KeyError, TypeError) as error:
            return answer.failed(f"PROTOCOL: {error}")

    async def _follow(
        self, request: PlannedRequest, options: SendOptions, answer: SseAnswer
    ) -> Result:
        async with self._open_session().post(
            self._url,
            json=self._body(request, options),
            headers={"x-request-id": request.request_id},
        ) as response:
            if response.status != 200:
                message = _message(await response.text())
                return Result(
                    outcome=(
                        Outcome.REJECTED if response.status in REJECTED_STATUSES else Outcome.FAILED
                    ),
                    error=f"HTTP {response.status}: {message}",
                )
            splitter = SseSplitter()
            async for chunk in response.content.iter_any():
                for data in splitter.feed(chunk):
                    result = answer.take(data)
                    if result is not None:
                        return result
        return answer.failed("CONNECTION: the stream ended before [DONE]")

    def _body(self, request: PlannedRequest, options: SendOptions) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": request.output_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._is_chat:
            body["messages"] = [{"role": "user", "content": request.prompt}]
        else:
            body["prompt"] = request.prompt
        if options.ignore_eos:
            body["ignore_eos"] = True
        if options.pace_tok_s is not None:
            body["readahead"] = {"pace_tok_s": options.pace_tok_s}
        return body

    def _open_session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use the sender as an async context manager"
        return self._session


class SseAnswer:
    """One streamed answer of OpenAI's, event by event."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._prompt_tokens: int | None = None
        self._output_tokens: int | None = None

    def take(self, data: str) -> Result | None:
        """Takes one event's data; a result iff it was the last.

        Raises:
            ValueError, KeyError, TypeError: it is not of OpenAI's form.
        """
        if data == "[DONE]":
            return Result(
                outcome=Outcome.FINISHED,
                prompt_tokens=self._prompt_tokens,
                output_tokens=self._output_tokens,
            )
        event = json.loads(data)
        if "error" in event:
            return self.failed(f"STREAM: {_message(data)}")
        if event.get("usage"):
            self._prompt_tokens = int(event["usage"]["prompt_tokens"])
            self._output_tokens = int(event["usage"]["completion_tokens"])
        for choice in event["choices"]:
            text = choice["delta"].get("content") if "delta" in choice else choice["text"]
            if text:
                self._timeline.mark(tokens=None, characters=len(text))
        return None

    def failed(self, error: str) -> Result:
        """The request's end, when it is a bad one."""
        return Result(
            outcome=Outcome.FAILED,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._output_tokens,
            error=error[:ERROR_CHARACTERS_MAX],
        )


def _message(body: str) -> str:
    """The message in OpenAI's error object, or the body as it is."""
    try:
        return str(json.loads(body)["error"]["message"])[:ERROR_CHARACTERS_MAX]
    except (ValueError, KeyError, TypeError):
        return body[:ERROR_CHARACTERS_MAX]
