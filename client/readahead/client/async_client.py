"""The client for asyncio."""

from __future__ import annotations

import asyncio
import random
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack, cast

import grpc.aio

from readahead.client.answer import Answer
from readahead.client.async_stream import AsyncGenerateCall, AsyncStream
from readahead.client.clock import monotonic_s
from readahead.client.connection import CHANNEL_OPTIONS, READY_POLL_S, Tls, address_of
from readahead.client.errors import DeadlineError, UnavailableError
from readahead.client.events import (
    Explanation,
    Model,
    explanation_from_proto,
    models_from_proto,
)
from readahead.client.options import GenerateOptions, generate_request
from readahead.client.retry import Attempts, RetryPolicy
from readahead.client.status import error_from_rpc
from readahead.v1 import inference_service_pb2 as pb
from readahead.v1 import inference_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from readahead.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class AsyncClient:
    """Talks to a Readahead router, within one event loop; one connection in all.

    Make it inside the running loop. Arguments are those of `Client`.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        timeout_s: float | None = 600.0,
        call_timeout_s: float = 10.0,
        retry: RetryPolicy | None = None,
        rng: random.Random | None = None,
    ) -> None:
        address = address_of(target)
        self._channel = (
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), options=CHANNEL_OPTIONS)
        )
        # The generated class is one for both kinds of channel; only its type is told apart.
        self._stub = cast("InferenceServiceAsyncStub", pb_grpc.InferenceServiceStub(self._channel))
        self._timeout_s = timeout_s
        self._call_timeout_s = call_timeout_s
        self._retry = retry or RetryPolicy()
        self._rng = rng or random.Random()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; running answers end with `CancelledError_`."""
        await self._channel.close()

    def generate(
        self, prompt: str | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncStream:
        """Asks for an answer, and returns it as a stream while it is being made.

        Raises:
            InvalidRequestError: the request cannot be put on the wire. Everything that the
                server refuses is raised by the stream.
        """
        request = generate_request(prompt, options)
        metadata = tuple(options.get("headers", {}).items())

        def open_call(request: pb.GenerateRequest, timeout_s: float | None) -> AsyncGenerateCall:
            return self._stub.Generate(request, timeout=timeout_s, metadata=metadata)

        answer = Answer(request, self._attempts(options.get("timeout_s", self._timeout_s)))
        return AsyncStream(answer, open_call, report_reading=self.report_reading)

    async def models(self) -> tuple[Model, ...]:
        """What can be asked for; at least one while the router is healthy."""
        return models_from_proto(await self._call(self._stub.ListModels, pb.ListModelsRequest()))

    async def explain(self, request_id: str) -> Explanation:
        """What was decided for a request and why, while it runs and for some time after.

        Raises:
            NotFoundError: the router does not know the id.
        """
        request = pb.ExplainRequest(request_id=request_id)
        return explanation_from_proto(
            await self._call(self._stub.Explain, request, request_id=request_id)
        )

    async def cancel(self, request_id: str) -> None:
        """Ends a request of any connection.

        Raises:
            NotFoundError: the router does not know the id.
        """
        request = pb.CancelRequest(request_id=request_id)
        await self._call(self._stub.Cancel, request, request_id=request_id)

    async def report_reading(self, request_id: str, tokens_read: int) -> None:
        """Tells the router how many of an answer's tokens the user has read so far.

        Raises:
            NotFoundError: the router does not know the id.
        """
        request = pb.ReportReadingRequest(request_id=request_id, tokens_read=tokens_read)
        await self._call(self._stub.ReportReading, request, request_id=request_id)

    async def wait_ready(self, limit_s: float) -> None:
        """Waits until the router can serve a request.

        Raises:
            UnavailableError: it cannot after `limit_s`; the message has the last cause.
        """
        end = monotonic_s() + limit_s
        cause = "it serves no model"
        while (left_s := end - monotonic_s()) > 0:
            try:
                request = pb.ListModelsRequest()
                timeout_s = min(left_s, self._call_timeout_s)
                if (await self._stub.ListModels(request, timeout=timeout_s)).models:
                    return
                cause = "it serves no model"
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure)
                if not isinstance(error, UnavailableError | DeadlineError):
                    raise error from failure
                cause = error.message
            await asyncio.sleep(min(READY_POLL_S, max(0.0, end - monotonic_s())))
        raise UnavailableError("UNREACHABLE", f"not ready after {limit_s:g} s: {cause}")

    def _attempts(self, timeout_s: float | None) -> Attempts:
        return Attempts(self._retry, rng=self._rng, timeout_s=timeout_s, now=monotonic_s())

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        request_id: str = "",
    ) -> _Response:
        """Calls an idempotent method, again where that may help."""
        attempts = self._attempts(self._call_timeout_s)
        while True:
            try:
                return await method(request, timeout=attempts.remaining_s(monotonic_s()))
            except grpc.aio.AioRpcError as failure:
                error = error_from_rpc(failure, request_id=request_id)
                wait_s = attempts.next_delay_s(error, now=monotonic_s())
                if wait_s is None:
                    raise error from failure
                await asyncio.sleep(wait_s)
