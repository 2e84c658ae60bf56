"""Why NIXL did not bring a handover, in reasons of the closed set."""

from __future__ import annotations

import zmq

from readahead.core.errors import Reason

_PEERS_MAX = 256
"""Peers whose last failure is remembered; a cluster has fewer."""
_REFUSALS = (RuntimeError, AssertionError, ValueError, NotImplementedError)
"""What vLLM raises for a peer that answers and does not fit."""


def reason_of(error: Exception) -> Reason:
    """Of a handshake that failed.

    vLLM has no classes for its refusals, so one of them is told by its text: a peer that was
    restarted is another engine, and the KV is gone with the first one.
    """
    if isinstance(error, zmq.ZMQError):
        return Reason.WORKER_LOST
    if "engine ID mismatch" in str(error):
        return Reason.KV_EXPIRED
    return Reason.UNSUPPORTED if isinstance(error, _REFUSALS) else Reason.WORKER_LOST


class PeerFailures:
    """The last handshake's failure of each peer. Written by one thread, read by another."""

    def __init__(self) -> None:
        self._reasons: dict[str, Reason] = {}

    def note(self, engine_id: str, error: Exception) -> None:
        """A handshake with this engine has failed."""
        if len(self._reasons) >= _PEERS_MAX:
            self._reasons = {}
        self._reasons[engine_id] = reason_of(error)

    def forget(self, engine_id: str) -> None:
        """A handshake has succeeded."""
        self._reasons.pop(engine_id, None)

    def reason(self, engine_id: str) -> Reason:
        """Why a pull from this engine has failed: the handshake, or else the read itself."""
        return self._reasons.get(engine_id, Reason.STREAM_BROKEN)
