"""How a request gets to the system, whichever door it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from readahead.loadgen.records import Outcome
from readahead.loadgen.timeline import Timeline
from readahead.loadgen.workload import PlannedRequest


class TargetError(Exception):
    """The target cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """The same for all requests of a run."""

    model: str
    """Empty: the server's only one."""
    timeout_s: float
    pace_tok_s: float | None
    ignore_eos: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a request ended."""

    outcome: Outcome
    prompt_tokens: int | None = None
    """As the server counted them; None: it did not say."""
    output_tokens: int | None = None
    error: str | None = None


class Sender(Protocol):
    """A connection to the target."""

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

    async def send(
        self, request: PlannedRequest, options: SendOptions, timeline: Timeline
    ) -> Result:
        """Sends a request and follows its answer to the end, marking each frame on receipt.

        A request that ends badly is a result, not an exception.
        """
        ...
