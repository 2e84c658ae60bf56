"""The RPC boundary: whatever a handler raises becomes a status with details."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.rpc.errors import abort

_log = structlog.get_logger()

if TYPE_CHECKING:  # generic in the stubs only
    _Handler = grpc.RpcMethodHandler[Any, Any] | None
    _Context = grpc.aio.ServicerContext[Any, Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns a ReadaheadError into its status and anything unexpected into BUG, logged."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wraps handlers with a single request; others (reflection) pass."""
        handler: Any = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.request_streaming:
            return handler  # type: ignore[no-any-return]
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guarded_stream(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guarded_unary(method, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guarded_unary(method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(request: Any, context: _Context) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _refuse(method, context, error)

    return guarded


def _guarded_stream(method: str, behavior: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            answer = behavior(request, context)
            if not hasattr(answer, "__aiter__"):
                await answer  # a handler that writes to the context itself
                return
            async with aclosing(answer):
                async for message in answer:
                    yield message
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await _refuse(method, context, error)

    return guarded


async def _refuse(method: str, context: _Context, error: Exception) -> NoReturn:
    known = _known(error)
    if known is None and isinstance(error, NotImplementedError):  # what generated stubs raise
        known = ReadaheadError(Reason.UNSUPPORTED, f"{method} is not implemented here")
    if known is None:
        _log.error(
            "handler_failed",
            method=method,
            exc_info=error,
            action="report this as a bug of Readahead",
        )
        known = ReadaheadError(Reason.BUG, f"internal error in {method}, see the server's log")
    await abort(context, known)


def _known(error: BaseException) -> ReadaheadError | None:
    """The error itself, or the first of ours in a group that a handler's TaskGroup raised."""
    if isinstance(error, ReadaheadError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(_known, error.exceptions)), None)
    return None
