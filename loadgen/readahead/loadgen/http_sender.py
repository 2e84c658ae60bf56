"""Sends to an OpenAI-compatible HTTP server."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from readahead.loadgen.http_exchange import Connections, OnBody
from readahead.loadgen.records import Outcome
from readahead.loadgen.request import Request
from readahead.loadgen.senders import Cause, Result, SendOptions, TargetError
from readahead.loadgen.sse_answer import SseAnswer, error_message
from readahead.loadgen.timeline import Timeline

READY_S_MAX = 5.0
"""Longest wait for the target's first answer, and for one to a reading report."""
REJECTED_STATUSES = frozenset({429, 503})
RUNNING_USAGE = "continuous_usage_stats"
"""vLLM's and ours: each frame says how many tokens there are so far."""


class HttpSender:
    """As many connections as requests run at once: the limit is the runner's.

    Asks for `continuous_usage_stats`, so that the tokens of each frame are known, until the
    server refuses that; the request that was refused is then sent again without.
    """

    def __init__(self, target: str, *, is_chat: bool, ca_file: Path | None = None) -> None:
        """A sender to be opened with `async with`.

        Args:
            target: http://… or https://…, with or without /v1.
            is_chat: the chat form rather than plain completions.
            ca_file: PEM of who signed the server's certificate. None: the system's authorities.
        """
        self._base = target.rstrip("/").removesuffix("/v1")
        url = urlsplit(self._base)
        self._is_tls = url.scheme == "https"
        self._host = url.hostname or ""
        self._port = url.port or (443 if self._is_tls else 80)
        self._host_header = url.netloc.rpartition("@")[2]
        self._path = url.path
        self._call = f"/v1/{'chat/completions' if is_chat else 'completions'}"
        self._is_chat = is_chat
        self._ca_file = ca_file
        self._connections: Connections | None = None
        self._has_running_usage = True
        self.is_ours = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._connections is not None:
            self._connections.close()
            await asyncio.sleep(0)  # the transports close in the loop's next round

    async def models(self) -> Sequence[str]:
        """Names of the models served; empty where the server has no such list."""
        url = f"{self._base}/v1/models"
        body = bytearray()

        def take(piece: bytes, _: float) -> bool:
            body.extend(piece)
            return False

        try:
            async with asyncio.timeout(READY_S_MAX):
                status, refusal = await self._exchange("GET", "/v1/models", None, take)
            if status in {404, 405}:
                return []
            if status != 200:
                raise TargetError(f"{url} answers {status}: {error_message(refusal.decode())}")
            models = json.loads(body)["data"]
            self.is_ours = any("readahead" in model for model in models)
            return [str(model["id"]) for model in models]
        except TimeoutError as error:
            raise TargetError(f"{self._base} does not answer within {READY_S_MAX:g} s") from error
        except OSError as error:
            raise TargetError(f"{self._base} cannot be reached: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{url} is not OpenAI's: {error}") from error

    async def send(self, request: Request, options: SendOptions, timeline: Timeline) -> Result:
        """Sends a request and follows its answer to the end."""
        answer = SseAnswer(timeline)
        try:
            async with asyncio.timeout(options.timeout_s):
                return await self._follow(request, options, answer)
        except TimeoutError:
            return answer.failed(Cause.TIMEOUT, f"no end within {options.timeout_s:g} s")
        except OSError as error:
            return answer.failed(Cause.CONNECTION, str(error) or type(error).__name__)
        except (ValueError, KeyError, TypeError) as error:
            return answer.failed(Cause.PROTOCOL, str(error))

    async def report_reading(self, request_id: str, tokens_read: int) -> bool:
        """Tells how far the user is, where the target is ours. False: it did not take it."""
        call = f"/v1/readahead/requests/{request_id}/reading"
        try:
            async with asyncio.timeout(READY_S_MAX):
                status, _ = await self._exchange(
                    "POST", call, {"tokens_read": tokens_read}, lambda *_: False
                )
        except (OSError, ValueError):  # a time-out is an OSError
            return False
        return status == 204

    async def _follow(self, request: Request, options: SendOptions, answer: SseAnswer) -> Result:
        headers = {"x-request-id": request.request_id, "accept": "text/event-stream"}
        while True:
            asked = self._has_running_usage
            body = self._body(request, options)
            status, refusal = await self._exchange(
                "POST", self._call, body, answer.feed, headers=headers
            )
            if status == 200:
                return answer.result()
            text = refusal.decode(errors="replace")
            if asked and status in {400, 422} and RUNNING_USAGE in text:
                self._has_running_usage = False
                continue
            is_rejected = status in REJECTED_STATUSES
            return Result(
                outcome=Outcome.REJECTED if is_rejected else Outcome.FAILED,
                cause=Cause.SERVER,
                error=f"HTTP {status}: {error_message(text)}",
            )

    def _body(self, request: Request, options: SendOptions) -> dict[str, Any]:
        stream_options: dict[str, bool] = {"include_usage": True}
        if self._has_running_usage:
            stream_options[RUNNING_USAGE] = True
        body: dict[str, Any] = {
            "model": options.model,
            "max_tokens": request.output_tokens,
            "stream": True,
            "stream_options": stream_options,
        }
        if self._is_chat:
            body["messages"] = request.messages
        else:
            ids = request.token_ids
            body["prompt"] = request.text if ids is None else ids
        if options.ignore_eos:
            body["ignore_eos"] = True
        if self.is_ours:
            extension: dict[str, Any] = {}
            if request.pace_tok_s is not None:
                extension["pace_tok_s"] = request.pace_tok_s
            if request.slo is not None:
                extension["slo"] = request.slo.fields()
            if extension:
                body["readahead"] = extension
            if request.user:
                body["user"] = request.user
        return body

    async def _exchange(
        self,
        method: str,
        call: str,
        body: Mapping[str, Any] | None,
        on_body: OnBody,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {self._path}{call} HTTP/1.1", f"host: {self._host_header}"]
        if body is not None:
            lines += ["content-type: application/json", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        head = "\r\n".join([*lines, "user-agent: readahead-load", "", ""]).encode()
        return await self._opened().exchange(head + content, on_body)

    def _opened(self) -> Connections:
        """Made at the first use: reading the authority's file may fail, and that has a message."""
        if self._connections is None:
            tls = None
            if self._is_tls:
                try:
                    tls = ssl.create_default_context(cafile=self._ca_file)
                except OSError as error:
                    raise OSError(
                        f"the authority's file {self._ca_file}: {error.strerror or error}"
                    ) from error
            self._connections = Connections(self._host, self._port, tls=tls)
        return self._connections
