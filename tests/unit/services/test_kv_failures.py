"""NIXL's failures in reasons of the closed set."""

from __future__ import annotations

import pytest

pytest.importorskip("zmq")
import zmq

from readahead.core.errors import Reason
from readahead.services.kv.nixl_failures import PeerFailures, reason_of


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (zmq.Again(), Reason.WORKER_LOST),
        (RuntimeError("Remote NIXL agent engine ID mismatch. Expected a"), Reason.KV_EXPIRED),
        (RuntimeError("NIXL compatibility hash mismatch."), Reason.UNSUPPORTED),
        (AssertionError("block size"), Reason.UNSUPPORTED),
        (OSError("no route"), Reason.WORKER_LOST),
    ],
)
def test_each_failure_has_a_reason(error: Exception, reason: Reason) -> None:
    """By what is raised, and for a restarted peer by what it says."""
    assert reason_of(error) is reason


def test_a_handshake_that_succeeds_clears_its_peer() -> None:
    """A later failure is then the read's own; and the memory is bounded."""
    failures = PeerFailures()
    failures.note("a", zmq.Again())
    failures.note("b", zmq.Again())
    failures.forget("a")
    assert (failures.reason("a"), failures.reason("b")) == (
        Reason.STREAM_BROKEN,
        Reason.WORKER_LOST,
    )
    for number in range(1000):
        failures.note(str(number), zmq.Again())
    assert len(failures._reasons) <= 256
