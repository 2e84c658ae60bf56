"""One live request between its front door and the workers: text in, merged chunks out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.promise import Verdict
from readahead.core.request import FinishReason, Leg, RequestId, WorkerId
from readahead.router.frame_gap import FrameGap, FrameHold
from readahead.router.reader import Reader
from readahead.router.sessions import Call, Chunk, Finish, FirstTokenSplit
from readahead.runtime.clock import monotonic_s

if TYPE_CHECKING:
    from readahead.router.traces import RequestTrace


class LiveSession:
    """One live request. Pushed to by the relay, pulled from by its front door.

    News that is not taken is merged, so it holds at most one answer. It ends exactly once.
    """

    __slots__ = (
        "_end",
        "_frames",
        "_gap",
        "_hold",
        "_is_end_given",
        "_is_held",
        "_on_cancel",
        "_text",
        "_token_ids",
        "_waiter",
        "arrived_at",
        "attempt",
        "attempts",
        "call",
        "decode_submitted_at",
        "ended_at",
        "first_token_at",
        "handover",
        "leg",
        "leg_number",
        "max_tokens",
        "moved_tokens",
        "moves",
        "output_tokens",
        "prefill_finished_at",
        "prefill_submitted_at",
        "queued_until",
        "reader",
        "trace",
        "transfer_s",
        "verdict",
        "worker_id",
        "workers",
    )

    def __init__(
        self,
        call: Call,
        *,
        max_tokens: int,
        arrived_at: float,
        trace: RequestTrace,
        reader: Reader,
        gap_s_max: float,
        hold: FrameHold,
        on_cancel: Callable[[RequestId], None],
    ) -> None:
        self.call = call
        self.max_tokens = max_tokens
        self.arrived_at = arrived_at
        self.trace = trace
        self.reader = reader
        """Whose clock is fed by the frames that are taken, and spaces them."""
        self._gap = FrameGap(reader.clock if call.is_streamed else None, gap_s_max=gap_s_max)
        self._hold = hold
        self._is_held = False
        self._on_cancel = on_cancel
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._waiter: asyncio.Future[None] | None = None
        self._end: Finish | ReadaheadError | None = None
        self._is_end_given = False
        self.verdict = Verdict.NEW
        """Of a worker's planner, as last told."""
        self.attempt = 0
        self.leg_number = 0
        """What the worker knows as the attempt; see `outbox.leg_number`."""
        self.attempts = 0
        self.leg: Leg | None = None
        self.worker_id: WorkerId | None = None
        """Whose deltas count; None while no worker has a leg."""
        self.workers: list[str] = []
        """Every worker that was given a leg, in order; for the log."""
        self.handover = b""
        self.output_tokens = 0
        self.moved_tokens = 0
        """Of them, those that were made before the leg came to the worker that has it."""
        self.moves = 0
        """How often it has moved from one worker to another."""
        self._frames = 0
        self.queued_until: float | None = None
        self.prefill_submitted_at: float | None = None
        self.prefill_finished_at: float | None = None
        self.decode_submitted_at: float | None = None
        self.transfer_s: float | None = None
        self.first_token_at: float | None = None
        self.ended_at: float | None = None

    # What the front door sees

    @property
    def request_id(self) -> RequestId:
        return self.call.request_id

    @property
    def prompt_tokens(self) -> int:
        return len(self.call.prompt_token_ids)

    async def next_chunk(self) -> Chunk:
        """Waits for news and takes all of it.

        Raises:
            ReadaheadError: the request ended badly. Text that came before is given first.
        """
        while self._end is None:
            if self._token_ids or self._text:
                if self._gap.wait_s(monotonic_s()) <= 0:
                    break
                self._wait_for_gap()
            self._waiter = self._hold.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    def cancel(self) -> None:
        """Ends the request everywhere. Safe to call at any time, more than once, after the end."""
        if self._end is None:
            self._on_cancel(self.call.request_id)

    # What the driver and the relay do to it

    @property
    def end(self) -> Finish | ReadaheadError | None:
        """How it ended; None while it lives."""
        return self._end

    @property
    def frames(self) -> int:
        """Chunks taken, and the one that waits to be taken."""
        is_finish_due = isinstance(self._end, Finish) and not self._is_end_given
        return self._frames + bool(self._token_ids or self._text or is_finish_due)

    def submitted(self, leg: Leg, *, attempt: int, worker_id: WorkerId, now: float) -> None:
        """A worker is being given a leg: from here on only that leg's deltas count."""
        self.attempt = self.leg_number = attempt
        self.leg = leg
        self.worker_id = worker_id
        self.workers.append(worker_id)
        if self.queued_until is None:
            self.queued_until = now
        if leg is not Leg.DECODE:
            self.verdict = Verdict.NEW  # another planner begins anew
        if leg is Leg.PREFILL:
            self.attempts += 1
            self.prefill_submitted_at = now
            self.prefill_finished_at = None
        else:
            self.attempts += leg is Leg.WHOLE
            self.decode_submitted_at = now

    def moved(self, *, leg_number: int, worker_id: WorkerId) -> None:
        """The leg has moved: from here on only that worker's deltas count."""
        self.leg, self.leg_number = Leg.DECODE, leg_number
        self.worker_id = worker_id
        self.workers.append(worker_id)
        self.moved_tokens = self.output_tokens
        self.moves += 1

    def detach(self) -> None:
        """No worker has a leg now: deltas that still come are stale."""
        self.leg = None
        self.worker_id = None

    def prefilled(self, handover: bytes, *, now: float) -> None:
        """The prompt's KV waits to be pulled."""
        self.handover = handover
        self.prefill_finished_at = now
        self.detach()

    def push(
        self, text: str, token_ids: Sequence[int], *, wait_s: float | None, now: float
    ) -> None:
        """New output of the current leg. `wait_s` comes with the leg's first token."""
        if self.first_token_at is None:
            self.first_token_at = now
            if wait_s is not None and self.leg is Leg.DECODE:
                self.transfer_s = wait_s
        self.output_tokens += len(token_ids)
        if promise := self.reader.promise:
            promise.clock.deliver(len(token_ids), now=now, token_ids=token_ids)
        if text:
            self._text.append(text)
        self._token_ids.extend(token_ids)
        if self._waiter is None:
            return
        if self._gap.wait_s(now) > 0:
            self._wait_for_gap()
        else:
            self._wake()

    def wake_if_due(self, now: float) -> bool:
        """Gives the front door what is there, if that has waited long enough."""
        if self._gap.wait_s(now) > 0:
            return False
        self._is_held = False
        self._wake()
        return True

    def _wait_for_gap(self) -> None:
        if not self._is_held:
            self._is_held = True
            self._hold.add(self)

    def _wake(self) -> None:
        if self._is_held:
            self._is_held = False
            self._hold.discard(self)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def finish(self, reason: FinishReason, *, now: float) -> None:
        """Ends it well. The last call but `next_chunk` and `cancel`."""
        self._deliver_rest(is_complete=True, now=now)
        self._conclude(
            Finish(
                reason=reason,
                prompt_tokens=self.prompt_tokens,
                output_tokens=self.output_tokens,
                first_token=self.first_token_split(),
                reading=self.reader.state(now),
                slo=None if self.reader.promise is None else self.reader.promise.state(),
                verdict=self.verdict,
            ),
            now,
        )

    def fail(self, error: ReadaheadError, *, now: float) -> None:
        """Ends it badly. The last call but `next_chunk` and `cancel`."""
        self._deliver_rest(is_complete=False, now=now)
        self._conclude(error, now)

    def first_token_split(self) -> FirstTokenSplit:
        """Where the time to the first token went, as far as it has come. The parts sum to it."""
        prefill_s = _span(self.prefill_submitted_at, self.prefill_finished_at)
        total_s = _span(self.arrived_at, self.first_token_at)
        decode_s = _span(self.decode_submitted_at, self.first_token_at)
        transfer_s = self.transfer_s
        if transfer_s is not None and decode_s is not None:
            transfer_s = min(transfer_s, decode_s)  # the worker's clock is not ours
            decode_s -= transfer_s
        queue_s = _span(self.arrived_at, self.queued_until)
        if total_s is not None:
            rest_s = total_s - (prefill_s or 0.0) - (transfer_s or 0.0) - (decode_s or 0.0)
            queue_s = max(0.0, rest_s)
        return FirstTokenSplit(
            queue_s=queue_s,
            prefill_s=prefill_s,
            transfer_s=transfer_s,
            first_decode_s=decode_s,
            total_s=total_s,
        )

    def _deliver_rest(self, *, is_complete: bool, now: float) -> None:
        """The end wakes the door at once, so that what is left goes out now."""
        assert self._end is None, f"{self.call.request_id} ends twice"
        left = len(self._token_ids) if self.call.is_streamed else self.output_tokens
        self.reader.conclude(left, is_complete=is_complete, now=now)

    def _conclude(self, end: Finish | ReadaheadError, now: float) -> None:
        self._end = end
        self.ended_at = now
        self.handover = b""
        self.detach()
        self._wake()

    def _take(self) -> Chunk:
        end = self._end
        finish = end if isinstance(end, Finish) else None
        if not self._token_ids and not self._text:
            if isinstance(end, ReadaheadError):
                raise end
            if self._is_end_given:
                raise ReadaheadError(Reason.BUG, "chunks were asked for after the last one")
        token_ids, self._token_ids = self._token_ids, []
        text = self._text[0] if len(self._text) == 1 else "".join(self._text)
        self._text.clear()
        self._is_end_given = finish is not None
        self._frames += 1
        if end is None:
            now = monotonic_s()
            self._gap.frame(now)
            if self.call.is_streamed:
                self.reader.deliver(len(token_ids), now=now)
        return Chunk(text=text, token_ids=token_ids, finish=finish, verdict=self.verdict)


def _span(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
