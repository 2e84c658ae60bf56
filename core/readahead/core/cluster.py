"""What the router knows of its workers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from readahead.core.latency.iteration import Curve
from readahead.core.request import Incarnation, WorkerId


class Role(StrEnum):
    """Which pool a worker belongs to."""

    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDescription:
    """What a worker says of itself; constant for one incarnation."""

    worker_id: WorkerId
    incarnation: Incarnation
    role: Role
    engine: str
    """"vllm" or "emulated"."""
    model: str
    context_tokens_max: int
    block_tokens: int
    kv_blocks: int
    requests_max: int
    """Most legs the engine runs at once."""
    prefill_credits: int
    """Most prefill legs the router keeps here at once."""
    handover_lease_s: float
    """Lease of a KV cache that waits to be pulled; 0 iff the worker makes none."""
    kv_transport: str = ""
    """What carries KV caches there: "nixl", "grpc", "none", or empty where it is not known."""
    zero_load: Curve | None = None
    """Seconds to the first token of a prompt alone there, by its tokens; None: it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLoad:
    """An engine's load as of its last step."""

    running: int
    waiting: int
    kv_blocks_free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """What a policy sees of a worker."""

    description: WorkerDescription
    load: WorkerLoad
    observed_at: float
    """When `load` was reported, seconds on the driver's clock."""
    legs: int
    """Legs the router has there now, or keeps a seat for; exact, unlike `load`."""
    committed_tokens: int
    """Prompt and longest output of those legs, and of legs that migrated away and still run."""
    is_draining: bool
    token_s: float = 0.0
    """Time between two tokens of a request there, as observed; 0: not known."""
