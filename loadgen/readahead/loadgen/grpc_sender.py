"""Sends over gRPC, with the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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
    UnavailableError,
)
from readahead.client.connection import Tls
from readahead.client.errors import DeadlineError
from readahead.loadgen.records import Outcome
from readahead.loadgen.request import Request
from readahead.loadgen.senders import Cause, Result, SendOptions, TargetError
from readahead.loadgen.timeline import Timeline
from readahead.runtime.clock import monotonic_s

READY_S_MAX = 5.0
"""Longest wait for the target's first answer."""
TLS_SCHEME = "grpcs://"


class GrpcSender:
    """One connection. Nothing is retried: an open loop offers each request once."""

    is_ours = True

    def __init__(self, target: str, *, is_chat: bool, ca_file: Path | None = None) -> None:
        """A sender; make it in the loop that uses it.

        Args:
            target: grpc://host:port, or grpcs://host:port for TLS.
            is_chat: prompts go as conversations.
            ca_file: PEM of who signed the server's certificate. None: gRPC's authorities.

        Raises:
            OSError: the authority's file cannot be read.
            ValueError: the target has another form.
        """
        is_tls = target.startswith(TLS_SCHEME)
        try:
            self._client = AsyncClient(
                f"grpc://{target.removeprefix(TLS_SCHEME)}" if is_tls else target,
                tls=Tls(authority_file=str(ca_file or "")) if is_tls else None,
                call_timeout_s=READY_S_MAX,
                retry=RetryPolicy(retries_max=0),
            )
        except OSError as error:
            raise OSError(f"the authority's file {ca_file}: {error.strerror}") from error
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

    async def send(self, request: Request, options: SendOptions, timeline: Timeline) -> Result:
        """Sends a request and follows its answer to the end."""
        try:
            text = self._text(request)
            stream = self._client.generate(text, **self._options(request, options))
            async with stream:
                async for event in stream:
                    match event:
                        case Delta():
                            timeline.mark(
                                monotonic_s(),
                                tokens=len(event.token_ids),
                                text=event.text,
                                token_ids=event.token_ids,
                            )
                        case Finished():
                            return _finished(event)
                        case _:
                            timeline.prompt_tokens = event.prompt_tokens
        except ReadaheadClientError as error:
            return _failed(error, timeline)
        return Result(
            outcome=Outcome.FAILED, cause=Cause.PROTOCOL, error="PROTOCOL: the answer had no end"
        )

    async def report_reading(self, request_id: str, tokens_read: int) -> bool:
        """Tells how far the user is. False: it was not taken."""
        try:
            await self._client.report_reading(request_id, tokens_read)
        except ReadaheadClientError:
            return False
        return True

    def _options(self, request: Request, options: SendOptions) -> GenerateOptions:
        generate: GenerateOptions = {
            "request_id": request.request_id,
            "model": options.model,
            "max_tokens": request.output_tokens,
            "ignore_eos": options.ignore_eos,
            "timeout_s": options.timeout_s,
        }
        if request.pace_tok_s is not None:
            generate["pace_tok_s"] = request.pace_tok_s
        if request.user:
            generate["user_id"] = request.user
        ids = request.token_ids
        if ids is not None:
            generate["token_ids"] = ids
        elif self._is_chat:
            generate["chat"] = request.messages
        return generate

    def _text(self, request: Request) -> str | None:
        return None if self._is_chat or request.token_ids is not None else request.text


def _finished(event: Finished) -> Result:
    is_cancelled = event.reason is FinishReason.CANCELLED
    return Result(
        outcome=Outcome.FAILED if is_cancelled else Outcome.FINISHED,
        prompt_tokens=event.usage.prompt_tokens,
        output_tokens=event.usage.output_tokens,
        cause=Cause.SERVER if is_cancelled else None,
        error="CANCELLED: ended by somebody else" if is_cancelled else None,
    )


def _failed(error: ReadaheadClientError, timeline: Timeline) -> Result:
    is_rejected = isinstance(error, OverloadedError) or error.reason == "NO_WORKER"
    cause = Cause.SERVER
    if isinstance(error, DeadlineError):
        cause = Cause.TIMEOUT
    elif isinstance(error, UnavailableError) and not is_rejected:
        cause = Cause.CONNECTION
    return Result(
        outcome=Outcome.REJECTED if is_rejected else Outcome.FAILED,
        prompt_tokens=timeline.prompt_tokens,
        cause=cause,
        error=f"{error.reason}: {error.message}",
    )
