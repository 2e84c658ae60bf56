"""One leg that runs on this worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from opentelemetry.trace import Span

from readahead.services.engine.engine import LegEnd, LegRequest
from readahead.services.worker.steps import StepStream


@dataclass(slots=True, eq=False)
class RunningLeg:
    """From its submission to its last news."""

    request: LegRequest
    stream: StepStream
    span: Span
    task: asyncio.Task[None] | None = None
    end: LegEnd | None = None
    output_token_ids: list[int] = field(init=False)
    """All that its router has been told, by this worker or an earlier one."""
    stopped_for: int = 0
    """Number of the move that it has stopped for, or is stopping for; 0: none."""
    called_off: int = 0
    """The latest move that was called off; it and earlier ones are never begun again."""
    guard: asyncio.TimerHandle | None = None
    """Has it go on after a while; set iff it has stopped."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.output_token_ids = list(self.request.output_token_ids)

    def told(self) -> None:
        """Its router has been told something."""
        self._news.set()

    async def wait_told(self, output_tokens: int) -> None:
        """Returns once the router has been told so many tokens of output, or the end."""
        while len(self.output_token_ids) < output_tokens and self.end is None:
            self._news.clear()
            await self._news.wait()
