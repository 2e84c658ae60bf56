"""A leg inside the emulated engine: what it has said, and what nobody has taken yet."""

from __future__ import annotations

import asyncio
import sys
import zlib
from dataclasses import dataclass, field

from readahead.core.errors import Reason
from readahead.core.planning.sequence import Sequence
from readahead.core.request import FinishReason
from readahead.services.engine.emulated_link import Handover
from readahead.services.engine.emulated_text import StopMatcher, next_token, token_text
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest


@dataclass(slots=True, eq=False, kw_only=True)
class EmulatedLeg:
    """One leg. News that is not taken is merged, so it is bounded by one answer."""

    request: LegRequest
    sequence: Sequence
    state: int
    """Checksum of all tokens so far; the next token follows from it."""
    stop: StopMatcher
    submitted_at: float
    handover: Handover | None = None
    """For a decode leg: what to pull."""
    scheduled_at: float | None = None
    end: LegEnd | None = None
    _token_ids: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _wait_s: float | None = None
    _first_token_s: float | None = None
    _waiter: asyncio.Future[None] | None = None

    def say_token(self, *, vocabulary_tokens: int) -> None:
        """Makes the next token, and the end if it is the last one."""
        token_id = next_token(self.state, vocabulary_tokens=vocabulary_tokens)
        self.state = zlib.crc32(token_id.to_bytes(4, sys.byteorder), self.state)
        self._token_ids.append(token_id)
        text, is_stopped = token_text(token_id), False
        if self.sequence.generated > self.request.sampling.min_tokens:
            text, is_stopped = self.stop.push(text)
        if is_stopped:
            self.end = LegEnd(finish_reason=FinishReason.STOP)
        elif self.sequence.generated >= self.sequence.output_tokens_max:
            text += self.stop.flush()
            self.end = LegEnd(finish_reason=FinishReason.LENGTH)
        if text:
            self._texts.append(text)
        self._wake()

    def say_end(self, end: LegEnd) -> None:
        """Ends the leg without a token."""
        if self.end is None:
            self.end = end
            self._wake()

    def time_first_token(self, now: float) -> None:
        """Notes where the time to the first token went."""
        scheduled_at = self.submitted_at if self.scheduled_at is None else self.scheduled_at
        self._wait_s = scheduled_at - self.submitted_at
        self._first_token_s = now - scheduled_at

    async def news(self) -> LegOutput:
        """All there is to tell, at once; waits until there is something."""
        while not self._token_ids and self.end is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        output = LegOutput(
            token_ids=self._token_ids,
            text="".join(self._texts),
            end=self.end,
            wait_s=self._wait_s,
            first_token_s=self._first_token_s,
        )
        self._token_ids, self._texts = [], []
        self._wait_s = self._first_token_s = None
        return output

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def failed(message: str) -> LegEnd:
    """The end of a leg whose engine died."""
    return LegEnd(error_reason=Reason.ENGINE_FAILED, error_message=message)
