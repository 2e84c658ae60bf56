"""How a request gets to the system, whichever door it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from readahead.loadgen.records import Outcome
from readahead.loadgen.request import Request
from readahead.loadgen.timeline import Timeline
from readahead.ruler.promises import ZeroLoadTtft


class TargetError(Exception):
    """The target cannot be used; the message says why."""


class Cause(StrEnum):
    """Why a request did not come to its end. A reader's own causes are `Leaving`'s."""

    CONNECTION = "connection"
    """The target could not be reached, or the connection broke."""
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    """What came is not what the interface says."""
    SERVER = "server"
    """The server said that it failed, or refused."""
    INTERRUPTED = "interrupted"
    """The run was told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """The same for all requests of a run."""

    model: str
    """Empty: the server's only one."""
    timeout_s: float
    ignore_eos: bool
    pace_tok_s: float | None = None
    tells_slo: ZeroLoadTtft | None = None
    """Requests say what their scenario promises, as multiples of this; None: they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a request ended."""

    outcome: Outcome
    prompt_tokens: int | None = None
    """As the server counted them; None: it did not say."""
    output_tokens: int | None = None
    cause: str | None = None
    """A `Cause`, or a `Leaving`; None: it finished."""
    error: str | None = None
    verdict: str = ""
    """Of the target's planner, where it is ours and says one."""


class Sender(Protocol):
    """A connection to the target."""

    @property
    def is_ours(self) -> bool:
        """Whether the target is a Readahead router; known after `models`."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def models(self) -> Sequence[str]:
        """Names of the models served.

        Raises:
            TargetError: the target cannot be reached, or is not what it should be.
        """
        ...

    async def send(self, request: Request, options: SendOptions, timeline: Timeline) -> Result:
        """Sends a request and follows its answer to the end, marking each frame on receipt.

        A request that ends badly is a result, not an exception. Cancelling ends it everywhere.
        """
        ...

    async def report_reading(self, request_id: str, tokens_read: int) -> bool:
        """Tells how far the user is, where the target is ours. False: it did not take it."""
        ...
