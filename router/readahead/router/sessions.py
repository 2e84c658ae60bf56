"""What the front doors and the driver agree on: a call goes in, chunks come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from readahead.core.messages import Explanation, ReadingState, SloState
from readahead.core.promise import Verdict
from readahead.core.reading.pace import Scenario
from readahead.core.request import FinishReason, RequestId
from readahead.core.slo import SloAsked


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen, checked and with defaults resolved, but for `max_tokens`."""

    max_tokens: int | None = None
    """None: up to the model's context."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, as a front door hands it in."""

    request_id: RequestId
    model: str
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    pace_tok_s: float | None = None
    """None: what the user's reports have shown, else a preset."""
    user_id: str = ""
    scenario: Scenario | None = None
    """What the answer is for; its preset counts where neither caller nor user have a pace."""
    slo: SloAsked | None = None
    """What he wants to be promised; None: nothing."""
    timeout_s: float | None = None
    """Seconds from now until the caller gives up."""
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    """W3C `traceparent` and `tracestate`, as they came in."""
    is_streamed: bool = True
    """Whether frames go out as text comes; else all of it is delivered at the end."""
    door: str = ""
    """"grpc" or "http"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTokenSplit:
    """Where the time to the first token went, seconds; None where a part did not occur."""

    queue_s: float | None = None
    """What is not in the other parts: waiting in the router, before and between the legs, and
    attempts that came to nothing."""
    prefill_s: float | None = None
    transfer_s: float | None = None
    first_decode_s: float | None = None
    total_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """How an answer ended well."""

    reason: FinishReason
    prompt_tokens: int
    output_tokens: int
    first_token: FirstTokenSplit
    reading: ReadingState | None = None
    """How far the reader is, once the last frame is on its way."""
    slo: SloState | None = None
    """What became of the promise, if there was one."""
    verdict: Verdict = Verdict.NEW
    """Of a worker's planner, as last told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """All that has come since the last chunk was taken; one frame for the client."""

    text: str = ""
    token_ids: Sequence[int] = ()
    finish: Finish | None = None
    """Set on the last chunk."""
    verdict: Verdict = Verdict.NEW
    """Of a worker's planner, as last told."""


class Session(Protocol):
    """One live request, as its front door sees it.

    Chunks not yet taken are merged, so a client that reads slowly gets larger frames and the
    router holds at most one answer per session, never a queue of frames.
    """

    @property
    def request_id(self) -> RequestId: ...

    @property
    def prompt_tokens(self) -> int: ...

    async def next_chunk(self) -> Chunk:
        """Waits for news and takes all of it.

        Raises:
            ReadaheadError: the request ended badly. Text that came before is given first.
        """
        ...

    def cancel(self) -> None:
        """Ends the request everywhere. Safe to call at any time, more than once, after the end."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that the router can be asked for."""

    name: str
    context_tokens_max: int
    engine: str


class Sessions(Protocol):
    """The router, as its front doors see it."""

    async def open(self, call: Call) -> Session:
        """Admits a call. Returns as soon as it is queued or placed.

        Raises:
            ReadaheadError: INVALID_REQUEST (duplicate id), CONTEXT_TOO_LONG, MODEL_NOT_FOUND,
                OVERLOADED (queue full), NO_WORKER (draining).
        """
        ...

    def cancel(self, request_id: RequestId) -> bool:
        """Ends a live request. False iff the id is unknown."""
        ...

    def report_reading(self, request_id: RequestId, tokens_read: int) -> bool:
        """Takes a reader's progress. False iff the id is unknown."""
        ...

    def explain(self, request_id: RequestId) -> Explanation | None:
        """What was decided and why, for live and recently ended requests."""
        ...

    def models(self) -> Sequence[ServedModel]:
        """Empty iff no request can be served now: /health is 503 then."""
        ...
