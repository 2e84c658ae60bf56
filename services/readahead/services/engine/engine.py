"""The seam between a worker's service and whatever generates tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from readahead.core.cluster import WorkerLoad
from readahead.core.errors import Reason
from readahead.core.latency.iteration import Curve
from readahead.core.promise import Promise, Verdict
from readahead.core.request import FinishReason, Leg, RequestId

LegKey = tuple[RequestId, int]
"""(request id, attempt): names a leg, and after a prefill leg its handover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDescription:
    """What an engine is; constant while it lives."""

    engine: str
    """"vllm" or "emulated"; shown wherever the engine appears."""
    engine_version: str
    model: str
    context_tokens_max: int
    block_tokens: int
    kv_blocks: int
    requests_max: int
    handover_lease_s: float
    """0 iff the engine makes no handovers."""
    moves_legs: bool = False
    """Whether a leg that generates can go on at another engine of this kind."""
    kv_transport: str = ""
    """What carries KV caches here: "nixl", "grpc", "none", or empty where it is not known."""
    zero_load: Curve | None = None
    """Seconds to the first token of a prompt alone, by its tokens; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; every default is resolved."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRequest:
    """One leg to run."""

    key: LegKey
    leg: Leg
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    handover: bytes = b""
    """For Leg.DECODE: what the prefill leg's end brought, or another engine's offer, verbatim."""
    output_token_ids: Sequence[int] = ()
    """For a leg that has moved here: its output so far. It is not told again, and `sampling` is
    that of the whole output."""
    pace_tok_s: float | None = None
    """Tokens per second that its user reads; None: nobody said."""
    arrived_at: float | None = None
    """When its user sent the request, seconds on this machine's monotonic clock; None: now."""
    promise: Promise | None = None
    """What its user is promised, from `arrived_at` on; None: the planner goes by the reader."""
    verdict: Verdict = Verdict.NEW
    """What an earlier worker's planner decided about the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderUpdate:
    """News of a leg's reader."""

    key: LegKey
    at: float
    """When it was so, seconds on this machine's monotonic clock."""
    pace_tok_s: float | None = None
    """How fast he reads; None: as before."""
    tokens_read: int | None = None
    """Tokens of the leg's output that he has come to; None: nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegEnd:
    """How a leg ended: `finish_reason` iff well, else `error_reason` and `error_message`."""

    finish_reason: FinishReason | None = None
    handover: bytes = b""
    error_reason: Reason | None = None
    error_message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegOutput:
    """News of one leg. `end` is set on the last one, exactly once."""

    token_ids: Sequence[int] = ()
    """Empty for a prefill leg, whose one token is not delivered."""
    text: str = ""
    end: LegEnd | None = None
    wait_s: float | None = None
    """With the first token: from submission to the engine's first scheduling, KV pull included."""
    first_token_s: float | None = None
    """With the first token: from there to the first token."""
    verdict: Verdict | None = None
    """What the planner has decided about it; None: nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegOffer:
    """A leg that has stopped, so that another engine can go on with it."""

    handover: bytes
    output_tokens: int
    """Its output so far, what other engines made of it included. The last of it may still be on
    its way out of `run`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What an engine's planner did, as of its last iteration."""

    policy: str
    iterations: int = 0
    """All that the scheduler was asked for, under any policy."""
    planned: int = 0
    """Those that a plan was made for and carried out."""
    kept: int = 0
    """Those under a plan that still held, so that none was made."""
    failures: int = 0
    """Planner raised an error; the stock schedule was used."""
    overruns: int = 0
    """Planner took too long; the stock schedule was used."""
    yielded: int = 0
    """Plan would have computed nothing; the stock schedule was used."""
    held_requests: int = 0
    """Running requests that sat out, summed over iterations."""
    preemptions: int = 0
    """Requests that a plan took the KV of."""
    planner_s: float = 0.0
    """Seconds spent in planners."""
    last_planner_s: float = 0.0
    """Of the last plan."""
    last_batch_tokens: int = 0
    """Tokens of the last iteration."""
    last_held: int = 0
    """Running requests that sat out in it."""
    parks: int = 0
    """Requests that a plan has parked."""
    resumes: int = 0
    """Those of them that were brought back."""
    parked: int = 0
    """Requests that are parked now: by plans, or on their way to another engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What the engine holds right now, read from the engine itself."""

    load: WorkerLoad
    handovers_held: int
    """KV caches that wait here to be pulled."""
    transfers_total: int
    """KV transfers this engine has pulled."""
    transfer_bytes_total: int
    plan: PlanReport | None = None
    """None where nobody plans."""


class Engine(Protocol):
    """Generates tokens. One instance per worker; used from one event loop."""

    @property
    def description(self) -> EngineDescription: ...

    def run(self, request: LegRequest) -> AsyncIterator[LegOutput]:
        """Runs a leg and yields its news; ends after the one with `end`.

        Closing the iterator early aborts the leg and frees its KV.

        Raises:
            ReadaheadError: INVALID_REQUEST or CONTEXT_TOO_LONG for input the engine refuses,
                ENGINE_FAILED when the engine is dead.
        """
        ...

    def load(self) -> WorkerLoad:
        """The load as of the last step; cheap, may be a step old."""
        ...

    def update_readers(self, updates: Iterable[ReaderUpdate]) -> None:
        """Takes news of readers, for the next iteration; cheap. Unknown legs are ignored."""
        ...

    def take_verdicts(self) -> Sequence[tuple[LegKey, Verdict]]:
        """What its planner has decided about legs that run, since the last call; cheap.

        Each verdict once, in no order; none where the policy admits everybody alike.
        """
        ...

    async def select_policy(self, name: str, knobs: Mapping[str, float]) -> None:
        """Plans by another policy from the next iteration on.

        Raises:
            ReadaheadError: INVALID_REQUEST; no such policy or knob. UNSUPPORTED; nobody plans
                here. ENGINE_FAILED; the engine is dead.
        """
        ...

    async def inspect(self) -> EngineState:
        """Asks the engine; costs a round trip to it."""
        ...

    async def renew_handovers(self, keys: Iterable[LegKey]) -> Sequence[LegKey]:
        """Extends leases. Returns the keys the engine does not hold."""
        ...

    async def release_handovers(self, keys: Iterable[LegKey]) -> None:
        """Frees KV that nobody will pull. Unknown keys are ignored."""
        ...

    async def offer_leg(self, key: LegKey) -> LegOffer:
        """Stops a leg that generates, between two iterations, and offers its KV to another engine.

        It makes no token until `resume_leg`, and frees all that it has when its `run` is closed.

        Raises:
            ReadaheadError: UNSUPPORTED; it cannot be moved. REQUEST_NOT_FOUND; it does not
                generate here, or has just ended. OVERLOADED; there is no room for its KV.
                ENGINE_FAILED; the engine is dead.
        """
        ...

    async def resume_leg(self, key: LegKey) -> None:
        """Lets a leg go on that has stopped. Others are left as they are."""
        ...

    async def is_healthy(self) -> bool:
        """False once the engine cannot serve any more."""
        ...

    async def close(self) -> None:
        """Stops the engine and every process it started."""
        ...
