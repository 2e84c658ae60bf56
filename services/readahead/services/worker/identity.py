"""Who this worker is."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.cluster import Role
from readahead.core.request import Incarnation, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """Constant from the start of the process to its end."""

    worker_id: WorkerId
    incarnation: Incarnation
    role: Role
    address: str
    """host:port under which routers reach it."""
    prefill_credits: int
