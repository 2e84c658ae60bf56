"""The one mapping between our errors and gRPC statuses, both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from readahead.core.errors import REASONS, ReadaheadError, Reason

DOMAIN = "readahead"
DETAILS_KEY = "grpc-status-details-bin"

# gRPC refuses trailers above 8 KiB (its default for received metadata), the message counted
# twice: in grpc-message and in the details. Whatever is longer is cut so that an error always
# arrives as itself.
MESSAGE_CHARACTERS_MAX = 1024
METADATA_ENTRIES_MAX = 16
METADATA_CHARACTERS_MAX = 128

_PLAIN: Mapping[grpc.StatusCode, Reason] = {
    grpc.StatusCode.OK: Reason.BUG,
    grpc.StatusCode.CANCELLED: Reason.CANCELLED,
    grpc.StatusCode.UNKNOWN: Reason.BUG,
    grpc.StatusCode.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND: Reason.REQUEST_NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Reason.INVALID_REQUEST,
    grpc.StatusCode.PERMISSION_DENIED: Reason.FORBIDDEN,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.OVERLOADED,
    grpc.StatusCode.FAILED_PRECONDITION: Reason.STALE_INCARNATION,
    grpc.StatusCode.ABORTED: Reason.STREAM_BROKEN,
    grpc.StatusCode.OUT_OF_RANGE: Reason.INVALID_REQUEST,
    grpc.StatusCode.UNIMPLEMENTED: Reason.UNSUPPORTED,
    grpc.StatusCode.INTERNAL: Reason.BUG,
    grpc.StatusCode.UNAVAILABLE: Reason.WORKER_LOST,
    grpc.StatusCode.DATA_LOSS: Reason.BUG,
    grpc.StatusCode.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
}
"""What a status without our details means: the peer's gRPC library made it, or a proxy did."""


def grpc_status(reason: Reason) -> grpc.StatusCode:
    """The status under which a reason travels."""
    return grpc.StatusCode[REASONS[reason].grpc_status]


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: ReadaheadError) -> NoReturn:
    """Ends the call with the error's status and details; trailing metadata set before is kept."""
    message = _cut(error.message, MESSAGE_CHARACTERS_MAX)
    await context.abort(
        grpc_status(error.reason),
        message,
        (
            *(context.trailing_metadata() or ()),
            (DETAILS_KEY, _status(error, message).SerializeToString()),
        ),
    )


def abort_in_thread(context: grpc.ServicerContext, error: ReadaheadError) -> NoReturn:
    """The same for a server of threads."""
    message = _cut(error.message, MESSAGE_CHARACTERS_MAX)
    context.set_trailing_metadata(((DETAILS_KEY, _status(error, message).SerializeToString()),))
    context.abort(grpc_status(error.reason), message)


def error_from_rpc(error: grpc.aio.AioRpcError) -> ReadaheadError:
    """The error that the peer meant; made from the bare status where it did not say."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            meant = _meant(value)
            if meant is not None:
                return meant
    code = error.code()
    return ReadaheadError(
        _PLAIN.get(code, Reason.BUG),
        error.details() or code.name,
        metadata={"grpc_status": code.name},
    )


def _status(error: ReadaheadError, message: str) -> status_pb2.Status:
    entries = list(error.metadata.items())[:METADATA_ENTRIES_MAX]
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN)
    for key, value in entries:
        info.metadata[_cut(key, METADATA_CHARACTERS_MAX)] = _cut(value, METADATA_CHARACTERS_MAX)
    details = [_packed(info)]
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(_packed(retry))
    if error.parameter is not None:
        request = error_details_pb2.BadRequest()
        request.field_violations.add(
            field=_cut(error.parameter, METADATA_CHARACTERS_MAX), description=message
        )
        details.append(_packed(request))
    code = grpc_status(error.reason).value[0]
    return status_pb2.Status(code=code, message=message, details=details)


def _meant(serialized: bytes) -> ReadaheadError | None:
    """The error inside the details; None iff they are not ours."""
    try:
        status = status_pb2.Status.FromString(serialized)
        return _from_details(status.message, status.details)
    except DecodeError:
        return None


def _from_details(message: str, details: Iterable[AnyMessage]) -> ReadaheadError | None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    request = error_details_pb2.BadRequest()
    retry_after_s: float | None = None
    for detail in details:
        if detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        elif not detail.Unpack(request):
            detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in Reason.__members__:
        return None
    violations = request.field_violations
    return ReadaheadError(
        Reason[info.reason],
        message,
        parameter=violations[0].field if violations else None,
        retry_after_s=retry_after_s,
        metadata=dict(info.metadata),
    )


def _packed(message: Any) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)
    return packed


def _cut(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
