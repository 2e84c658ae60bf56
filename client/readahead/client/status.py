"""From a failed RPC to an error of the tree: `grpc-status-details-bin`, decoded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from readahead.client.errors import (
    ERROR_TYPES,
    UNREACHABLE,
    BrokenStreamError,
    ReadaheadClientError,
    ServerError,
)

DOMAIN = "readahead"
DETAILS_KEY = "grpc-status-details-bin"

_REASON_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_REQUEST",
    grpc.StatusCode.OUT_OF_RANGE: "INVALID_REQUEST",
    grpc.StatusCode.UNIMPLEMENTED: "UNSUPPORTED",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "FORBIDDEN",
    grpc.StatusCode.NOT_FOUND: "REQUEST_NOT_FOUND",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.UNAVAILABLE: UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED",
    grpc.StatusCode.CANCELLED: "CANCELLED",
    grpc.StatusCode.ABORTED: "STREAM_BROKEN",
}


class RpcFailure(Protocol):
    """What the errors of grpc and of grpc.aio have in common."""

    def code(self) -> grpc.StatusCode: ...

    def details(self) -> str | None: ...

    def trailing_metadata(self) -> object:
        """Pairs of a key and a value; the two kinds have no closer type in common."""
        ...


def error_from_rpc(
    failure: RpcFailure, *, request_id: str = "", tokens_delivered: int | None = None
) -> ReadaheadClientError:
    """The error that a failed RPC stands for.

    `tokens_delivered` is set once a stream has begun: a connection lost from then on is a
    broken stream, whatever the transport calls it.
    """
    info, fields, retry_after_s = _details(failure)
    is_ours = info.domain == DOMAIN
    reason = info.reason if is_ours else _reason_from_code(failure)
    metadata = dict(info.metadata) if is_ours else {}
    error_type = ERROR_TYPES.get(reason, ServerError)
    if tokens_delivered is not None:
        metadata.setdefault("tokens_delivered", str(tokens_delivered))
        if reason == UNREACHABLE:
            reason, error_type = "STREAM_BROKEN", BrokenStreamError
    return error_type(
        reason,
        failure.details() or failure.code().name,
        request_id=metadata.get("request_id", request_id),
        parameter=fields.field_violations[0].field if fields.field_violations else None,
        retry_after_s=retry_after_s,
        metadata=metadata,
    )


def _details(
    failure: RpcFailure,
) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, float | None]:
    info = error_details_pb2.ErrorInfo()
    fields = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    try:
        for detail in _status(failure).details:
            if detail.Unpack(retry):
                retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
            elif not detail.Unpack(fields):
                detail.Unpack(info)
    except DecodeError:  # details of somebody else's making: the code still speaks
        pass
    return info, fields, retry_after_s


def _status(failure: RpcFailure) -> status_pb2.Status:
    entries = failure.trailing_metadata()
    for entry in entries if isinstance(entries, Iterable) else ():
        match entry:
            case (key, bytes() as value) if key == DETAILS_KEY:
                return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _reason_from_code(failure: RpcFailure) -> str:
    code = failure.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in (
        failure.details() or ""
    ):
        return "INVALID_REQUEST"  # gRPC's own answer to a message above the size limit
    return _REASON_BY_CODE.get(code, "BUG")
