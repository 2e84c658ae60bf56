"""Sends over gRPC, with the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from readahead.client import (
    AsyncClient,
    Delta,
    Finished,
    FinishReason,
    GenerateOptions,
    OverloadedError,
    ReadaheadClientError,
    RetryPolicy,
)
from readahead.loadgen.records import Outcome
from readahead.loadgen.senders import Result, SendOptions, TargetError
from readahead.loadgen.timeline import Timeline
from readahead.loadgen.workload import PlannedRequest

READY_S_MAX = 5.0
"""Longest wait for the target's first answer."""


class GrpcSender:
    """One connection. Nothing is retried: an open loop offers each request once."""

    def __init__(self, target: str, *, is_chat: bool) -> None:
        self._client = AsyncClient(
            target, call_timeout_s=READY_S_MAX, retry=RetryPolicy(retries_max=0)
        )
        self._target = target
        self._is_chat = is_chat

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def models(self) -> Sequence[str]:
        """Names of the models served."""
        try:
            return [model.name for model in await self._client.models()]
        except ReadaheadClientError as error:
            raise TargetError(f"{self._target}: {error.message}") from error

    async def send(
        self, request: PlannedRequest, options: SendOptions, timeline: Timeline
    ) -> Result:
        """Sends a request and follows its answer to the end."""
        prompt_tokens: int | None = None
        try:
            stream = self._client.generate(self._text(request), **self._options(request, options))
            async with stream:
                async for event in stream:
                    match event:
                        case Delta():
                            timeline.mark(tokens=len(event.token_ids), characters=len(event.text))
                        case Finished():
                            return _finished(event)
                        case _:
                            prompt_tokens = event.prompt_tokens
        except ReadaheadClientError as error:
            is_rejected = isinstance(error, OverloadedError) or error.reason == "NO_WORKER"
            return Result(
                outcome=Outcome.REJECTED if is_rejected else Outcome.FAILED,
                prompt_tokens=prompt_tokens,
                error=f"{error.reason}: {error.message}",
            )
        return Result(outcome=Outcome.FAILED, error="the answer had no end")

    def _options(self, request: PlannedRequest, options: SendOptions) -> GenerateOptions:
        generate: GenerateOptions = {
            "request_id": request.request_id,
            "model": options.model,
            "max_tokens": request.output_tokens,
            "ignore_eos": options.ignore_eos,
            "timeout_s": options.timeout_s,
        }
        if options.pace_tok_s is not None:
            generate["pace_tok_s"] = options.pace_tok_s
        if not isinstance(request.prompt, str):
            generate["token_ids"] = request.prompt
        elif self._is_chat:
            generate["chat"] = [{"role": "user", "content": request.prompt}]
        return generate

    def _text(self, request: PlannedRequest) -> str | None:
        return request.prompt if isinstance(request.prompt, str) and not self._is_chat else None


def _finished(event: Finished) -> Result:
    is_cancelled = event.reason is FinishReason.CANCELLED
    return Result(
        outcome=Outcome.FAILED if is_cancelled else Outcome.FINISHED,
        prompt_tokens=event.usage.prompt_tokens,
        output_tokens=event.usage.output_tokens,
        error="CANCELLED: ended by somebody else" if is_cancelled else None,
    )
