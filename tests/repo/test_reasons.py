"""The table of reasons is total and makes sense."""

from __future__ import annotations

import grpc
import pytest

from readahead.core.errors import REASONS, Blame, Reason


def test_table_is_total() -> None:
    """Every reason has its row."""
    assert set(REASONS) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_row_makes_sense(reason: Reason) -> None:
    """Its gRPC status exists, its HTTP status is an error, and the blame fits both."""
    spec = REASONS[reason]
    assert hasattr(grpc.StatusCode, spec.grpc_status)
    assert spec.grpc_status != "OK"
    assert 400 <= spec.http_status <= 599
    assert spec.openai_type
    if spec.blame is Blame.CALLER and reason is not Reason.DEADLINE_EXCEEDED:
        assert spec.http_status < 500 or reason is Reason.UNSUPPORTED
    if spec.http_status == 400:
        assert not spec.is_retryable
