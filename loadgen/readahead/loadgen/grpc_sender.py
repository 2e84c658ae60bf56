"""Sends over gRPC: with calls of our own, and with the SDK where the target speaks TLS."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.message import DecodeError

from readahead.client import (
    AsyncClient,
    GenerateOptions,
    ReadaheadClientError,
    RetryPolicy,
    Slo,
)
from readahead.client.answer import Answer
from readahead.client.connection import Tls, address_of
from readahead.client.options import generate_request
from readahead.client.retry import Attempts
from readahead.loadgen.grpc_answer import GrpcAnswer, failed
from readahead.loadgen.grpc_channel import Channel
from readahead.loadgen.grpc_status import CallFailedError
from readahead.loadgen.request import Request
from readahead.loadgen.senders import Result, SendOptions, TargetError
from readahead.loadgen.timeline import Timeline
from readahead.runtime.clock import monotonic_s
from readahead.v1 import inference_service_pb2 as pb

READY_S_MAX = 5.0
"""Longest wait for the target's first answer."""
TLS_SCHEME = "grpcs://"
GENERATE = "/readahead.v1.InferenceService/Generate"
REPORT_READING = "/readahead.v1.InferenceService/ReportReading"
NO_RETRIES = RetryPolicy(retries_max=0)


class GrpcSender:
    """As few connections as the target lets us. Nothing is retried: an open loop offers each
    request once.
    """

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
                retry=NO_RETRIES,
            )
        except OSError as error:
            raise OSError(f"the authority's file {ca_file}: {error.strerror}") from error
        self._channel = None if is_tls else Channel(address_of(target))
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
        if self._channel is not None:
            self._channel.close()
        await self._client.close()
        await asyncio.sleep(0)  # the transports close in the loop's next round

    async def models(self) -> Sequence[str]:
        """Names of the models served."""
        try:
            return [model.name for model in await self._client.models()]
        except ReadaheadClientError as error:
            raise TargetError(f"{self._target}: {error.message}") from error

    async def send(self, request: Request, options: SendOptions, timeline: Timeline) -> Result:
        """Sends a request and follows its answer to the end."""
        answer = GrpcAnswer(timeline)
        try:
            if self._channel is None:
                await self._follow_with_sdk(request, options, answer)
            else:
                await self._follow(self._channel, request, options, answer)
        except ReadaheadClientError as error:
            return failed(error, timeline)
        except DecodeError as error:
            return answer.unreadable(str(error))
        return answer.result()

    async def report_reading(self, request_id: str, tokens_read: int) -> bool:
        """Tells how far the user is. False: it was not taken."""
        try:
            if self._channel is None:
                await self._client.report_reading(request_id, tokens_read)
            else:
                report = pb.ReportReadingRequest(request_id=request_id, tokens_read=tokens_read)
                await self._channel.call(
                    REPORT_READING,
                    report.SerializeToString(),
                    lambda *_: False,
                    timeout_s=READY_S_MAX,
                )
        except (ReadaheadClientError, CallFailedError):
            return False
        return True

    async def _follow(
        self, channel: Channel, request: Request, options: SendOptions, answer: GrpcAnswer
    ) -> None:
        asked = generate_request(self._text(request), self._options(request, options))
        attempts = Attempts(
            NO_RETRIES, rng=random.Random(0), timeout_s=options.timeout_s, now=monotonic_s()
        )
        state = Answer(asked, attempts)

        def take(message: bytes, stamp_s: float) -> bool:
            event = state.take(pb.GenerateResponse.FromString(message))
            return event is not None and answer.take(event, stamp_s)

        try:
            await channel.call(
                GENERATE, asked.SerializeToString(), take, timeout_s=options.timeout_s
            )
        except CallFailedError as failure:
            raise state.error(failure) from failure
        if not state.is_finished:
            raise state.truncated()

    async def _follow_with_sdk(
        self, request: Request, options: SendOptions, answer: GrpcAnswer
    ) -> None:
        stream = self._client.generate(self._text(request), **self._options(request, options))
        async with stream:
            async for event in stream:
                if answer.take(event, monotonic_s()):
                    break

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
        if request.slo is not None:
            generate["slo"] = Slo(**request.slo.fields())  # type: ignore[arg-type]  # as named
        ids = request.token_ids
        if ids is not None:
            generate["token_ids"] = ids
        elif self._is_chat:
            generate["chat"] = request.messages
        return generate

    def _text(self, request: Request) -> str | None:
        return None if self._is_chat or request.token_ids is not None else request.text
