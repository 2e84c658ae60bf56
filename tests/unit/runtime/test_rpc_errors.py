"""The mapping between reasons and gRPC statuses is total, both ways."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc.aio import AioRpcError, Metadata

from readahead.core.errors import Reason
from readahead.runtime.rpc.errors import DETAILS_KEY, error_from_rpc, grpc_status


def _rpc_error(
    code: grpc.StatusCode, details: str | None = None, trailing: bytes | None = None
) -> AioRpcError:
    pairs = () if trailing is None else ((DETAILS_KEY, trailing),)
    return AioRpcError(code, Metadata(), Metadata(*pairs), details)


def _details(domain: str, reason: str) -> bytes:
    info = AnyMessage()
    info.Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))
    return bytes(status_pb2.Status(message="theirs", details=[info]).SerializeToString())


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_status(reason: Reason) -> None:
    """No reason is left out, and none travels as success."""
    assert grpc_status(reason) not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_without_details_has_a_reason(code: grpc.StatusCode) -> None:
    """A status that gRPC itself or a proxy made is understood, with its text."""
    error = error_from_rpc(_rpc_error(code, "some text"))
    assert error.message == "some text"
    assert error.metadata == {"grpc_status": code.name}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Reason.WORKER_LOST),
        (grpc.StatusCode.CANCELLED, Reason.CANCELLED),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.DEADLINE_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.OVERLOADED),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.UNSUPPORTED),
        (grpc.StatusCode.UNKNOWN, Reason.BUG),
    ],
)
def test_a_plain_status_means_what_grpc_says(code: grpc.StatusCode, reason: Reason) -> None:
    """The statuses that a lost peer, a cancel and a deadline leave."""
    assert error_from_rpc(_rpc_error(code)).reason == reason
    assert error_from_rpc(_rpc_error(code)).message == code.name


@pytest.mark.parametrize(
    "trailing",
    [
        b"\xff not a message",
        b"",
        _details("somebody.else", "OVERLOADED"),
        _details("readahead", "REASON_OF_A_NEWER_BUILD"),
    ],
)
def test_details_that_are_not_ours_are_passed_over(trailing: bytes) -> None:
    """Foreign or damaged details never hide the status."""
    error = error_from_rpc(_rpc_error(grpc.StatusCode.ABORTED, "text", trailing))
    assert error.reason == Reason.STREAM_BROKEN
    assert error.message == "text"


def test_our_details_win_over_the_status() -> None:
    """The reason is finer than the status."""
    trailing = _details("readahead", "KV_EXPIRED")
    error = error_from_rpc(_rpc_error(grpc.StatusCode.ABORTED, "text", trailing))
    assert (error.reason, error.message) == (Reason.KV_EXPIRED, "theirs")
