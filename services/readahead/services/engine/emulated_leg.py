"""A leg inside the emulated engine: what it has said, and what nobody has taken yet."""

from __future__ import annotations

import asyncio
import sys
import zlib
from dataclasses import dataclass, field

from readahead.core.errors import Reason
from readahead.core.planning.sequence import Sequence
from readahead.core.promise import PromiseClock, Verdict
from readahead.core.request import FinishReason, Leg
from readahead.services.engine.emulated_link import Handover
from readahead.services.engine.emulated_text import StopMatcher, next_token, token_text
from readahead.services.engine.engine import LegEnd, LegOutput, LegRequest
from readahead.services.engine.vllm_scheduler_sequences import PACE_TOK_S


@dataclass(slots=True, eq=False, kw_only=True)
class EmulatedLeg:
    """One leg. News that is not taken is merged, so it is bounded by one answer."""

    request: LegRequest
    sequence: Sequence
    """Another one after it has stopped and gone on."""
    state: int
    """Checksum of all tokens so far; the next token follows from it."""
    stop: StopMatcher
    submitted_at: float
    handover: Handover | None = None
    """For a decode leg: what to pull."""
    made_before: int
    """Output tokens that are part of the sequence's prompt: other workers made them, or this one
    before it stopped."""
    scheduled_at: float | None = None
    end: LegEnd | None = None
    is_offered: bool = False
    """It has stopped, and another engine may pull its KV."""
    promise: PromiseClock | None = field(init=False)
    verdict: Verdict = field(init=False)
    """As last told."""
    _is_timed: bool = False
    _token_ids: list[int] = field(default_factory=list)
    _texts: list[str] = field(default_factory=list)
    _wait_s: float | None = None
    _first_token_s: float | None = None
    _waiter: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        promised = self.request.promise
        self.promise = None
        if promised is not None:
            self.promise = PromiseClock(promised, arrived_at=self.sequence.arrived_at)
        self.verdict = self.request.verdict
        self.go_on_as(self.sequence)

    @property
    def output_tokens(self) -> int:
        """Made so far, by whichever worker."""
        return self.made_before + self.sequence.generated

    def go_on_as(self, sequence: Sequence) -> None:
        """Is this sequence from now on, judged and due as before."""
        self.sequence = sequence
        sequence.verdict = self.verdict
        if self.promise is not None:
            sequence.plan_by(self.promise)

    def say_token(self, *, vocabulary_tokens: int, now: float) -> None:
        """Makes the next token, and the end if it is the last one."""
        token_id = next_token(self.state, vocabulary_tokens=vocabulary_tokens)
        self.state = zlib.crc32(token_id.to_bytes(4, sys.byteorder), self.state)
        self._token_ids.append(token_id)
        if self.promise is not None:
            self.promise.deliver(1, now=now, token_ids=(token_id,))
            self.sequence.plan_by(self.promise)
        text, is_stopped = token_text(token_id), False
        if self.output_tokens > self.request.sampling.min_tokens:
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
        """Notes where the time to the leg's first token went; later tokens change nothing."""
        if self._is_timed:
            return
        self._is_timed = True
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


def sequence_of(
    request: LegRequest, *, made: int, output_tokens_max: int, is_pulled: bool, now: float
) -> Sequence:
    """The rest of a leg, as the scheduler sees it.

    Args:
        request: the leg.
        made: its output tokens so far; they count as prompt.
        output_tokens_max: of its whole output.
        is_pulled: its KV comes from another worker.
        now: seconds on the engine's clock.
    """
    return Sequence(
        request_id=request.key[0],
        attempt=request.key[1],
        prompt_tokens=len(request.prompt_token_ids) + made,
        output_tokens_max=output_tokens_max - made,
        arrived_at=now if request.arrived_at is None else request.arrived_at,
        pace_tok_s=request.pace_tok_s or PACE_TOK_S,
        is_pulled=is_pulled,
        is_prefill_only=request.leg is Leg.PREFILL,
    )


def stop_matcher_of(request: LegRequest) -> StopMatcher:
    """As it is after the output that other workers made."""
    matcher = StopMatcher(request.sampling.stop)
    for token_id in request.output_token_ids[request.sampling.min_tokens :]:
        matcher.push(token_text(token_id))
    return matcher


def failed(message: str) -> LegEnd:
    """The end of a leg whose engine died."""
    return LegEnd(error_reason=Reason.ENGINE_FAILED, error_message=message)
