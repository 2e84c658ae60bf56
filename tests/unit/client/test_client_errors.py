"""The SDK's error tree against the server's closed set."""

from __future__ import annotations

import grpc
import pytest
from fake_inference import Fail

from readahead.client import BrokenStreamError, InvalidRequestError, ServerError
from readahead.client.errors import ERROR_TYPES, RETRYABLE_REASONS, UNREACHABLE
from readahead.client.status import error_from_rpc
from readahead.core.errors import REASONS


class FakeFailure:
    """A failed RPC as grpc presents it."""

    def __init__(self, fail: Fail) -> None:
        self._fail = fail

    def code(self) -> grpc.StatusCode:
        return self._fail.code

    def details(self) -> str:
        return self._fail.message

    def trailing_metadata(self) -> tuple[tuple[str, bytes], ...]:
        return self._fail.trailer()


def test_each_reason_of_the_server_has_its_place_and_its_retry_rule() -> None:
    """The SDK's table, which imports nothing of ours, agrees with the core's."""
    assert {reason.value for reason in REASONS} == ERROR_TYPES.keys() - {UNREACHABLE}
    retryable = {reason.value for reason, spec in REASONS.items() if spec.is_retryable}
    assert retryable == RETRYABLE_REASONS - {UNREACHABLE}


def test_an_error_carries_all_that_the_server_said() -> None:
    """Reason, message, parameter, hint and metadata are taken from the details."""
    error = error_from_rpc(
        FakeFailure(
            Fail(
                code=grpc.StatusCode.INVALID_ARGUMENT,
                message="too long",
                reason="CONTEXT_TOO_LONG",
                parameter="prompt",
                retry_after_s=1.25,
                metadata={"prompt_tokens": "9"},
            )
        ),
        request_id="r1",
    )
    assert isinstance(error, InvalidRequestError)
    assert (error.reason, error.message, error.request_id) == ("CONTEXT_TOO_LONG", "too long", "r1")
    assert (error.parameter, error.retry_after_s) == ("prompt", 1.25)
    assert error.metadata == {"prompt_tokens": "9"}
    assert str(error) == "CONTEXT_TOO_LONG: too long (request r1)"


def test_the_servers_request_id_wins() -> None:
    """An id in the metadata is the one that the server's log has."""
    fail = Fail(code=grpc.StatusCode.INTERNAL, reason="BUG", metadata={"request_id": "theirs"})
    assert error_from_rpc(FakeFailure(fail), request_id="ours").request_id == "theirs"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_a_bare_status_has_a_meaning(code: grpc.StatusCode) -> None:
    """Statuses that a transport or a proxy made belong to the tree as well."""
    error = error_from_rpc(FakeFailure(Fail(code=code)))
    assert type(error) is ERROR_TYPES[error.reason]


def test_details_of_another_make_do_not_hide_the_status() -> None:
    """Bytes that are no google.rpc.Status fall back to the code."""
    fail = Fail(code=grpc.StatusCode.UNAVAILABLE, raw_details=b"\xff\xff")
    assert error_from_rpc(FakeFailure(fail)).reason == UNREACHABLE


def test_an_unknown_reason_is_a_server_error_that_is_not_retried() -> None:
    """A newer server may have reasons that this build lacks."""
    fail = Fail(code=grpc.StatusCode.UNAVAILABLE, reason="FROM_THE_FUTURE")
    error = error_from_rpc(FakeFailure(fail))
    assert isinstance(error, ServerError)
    assert (error.reason, error.is_retryable) == ("FROM_THE_FUTURE", False)


def test_a_connection_lost_in_mid_answer_is_a_broken_stream() -> None:
    """Once text has come, another try is the caller's decision."""
    error = error_from_rpc(FakeFailure(Fail(code=grpc.StatusCode.UNAVAILABLE)), tokens_delivered=4)
    assert isinstance(error, BrokenStreamError)
    assert not error.is_retryable
    assert error.metadata["tokens_delivered"] == "4"


def test_a_message_above_grpcs_size_limit_is_the_callers_fault() -> None:
    """gRPC says RESOURCE_EXHAUSTED for it, which is no overload."""
    fail = Fail(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="CLIENT: Sent message larger than max (9 vs. 8)",
    )
    assert isinstance(error_from_rpc(FakeFailure(fail)), InvalidRequestError)
