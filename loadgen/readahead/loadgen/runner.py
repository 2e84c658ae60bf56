"""Runs a workload: each request at its time, whatever became of the others."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome, Record, RecordFile
from readahead.loadgen.senders import Result, Sender, SendOptions
from readahead.loadgen.timeline import Timeline, token_counts
from readahead.loadgen.workload import PlannedRequest
from readahead.runtime.clock import monotonic_s

SPIN_S = 0.0015
"""The last stretch before a send is spent giving way to other tasks instead of sleeping: epoll
sleeps whole milliseconds, which alone would make every send late."""
REFRESH_S = 0.25
REFRESH_S_MAX = 2.0
"""Progress is drawn when no send is due soon, or when it has not been for this long."""
REFRESH_ROOM_S = 0.02
"""Room before the next send that a refresh needs; drawing takes a few milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a run does not exceed."""

    requests_max: int
    """Running at once. One more is dropped by the generator, and the run is invalid."""


class Run:
    """One run. Times are seconds from its start."""

    def __init__(
        self,
        sender: Sender,
        options: SendOptions,
        limits: RunLimits,
        *,
        file: RecordFile | None = None,
        stop: asyncio.Event | None = None,
        refresh: Callable[[LiveCounts, float], None] | None = None,
    ) -> None:
        self._sender = sender
        self._options = options
        self._limits = limits
        self._file = file
        self._stop = stop or asyncio.Event()
        self._refresh = refresh
        self._start = 0.0
        self._next_send_s = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.counts = LiveCounts()
        self.records: list[Record] = []

    @property
    def is_interrupted(self) -> bool:
        """The run was told to stop before its end."""
        return self._stop.is_set()

    async def offer(self, workload: Sequence[PlannedRequest]) -> None:
        """Sends all of the workload and waits for its end."""
        gc.collect()
        gc.freeze()  # the workload lives as long as the run: a collection need not walk it
        self._start = monotonic_s()
        try:
            async with asyncio.TaskGroup() as attendants:
                watchers = [attendants.create_task(self._cancel_when_stopped())]
                if self._refresh is not None:
                    watchers.append(attendants.create_task(self._keep_fresh(self._refresh)))
                async with asyncio.TaskGroup() as requests:
                    for request in workload:
                        if not await self._sleep_until(request.arrival_s):
                            break
                        self._begin(request, requests)
                    self._next_send_s = float("inf")
                for watcher in watchers:
                    watcher.cancel()
        finally:
            gc.unfreeze()

    def _now_s(self) -> float:
        return monotonic_s() - self._start

    def _begin(self, request: PlannedRequest, requests: asyncio.TaskGroup) -> None:
        if self.counts.running >= self._limits.requests_max:
            self.counts.dropped += 1
            return
        self.counts.started()
        task = requests.create_task(self._follow(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _follow(self, request: PlannedRequest) -> None:
        sent_s = self._now_s()
        timeline = Timeline(arrival_s=request.arrival_s, clock=self._now_s, counts=self.counts)
        result = Result(outcome=Outcome.CANCELLED)
        try:
            result = await self._sender.send(request, self._options, timeline)
        finally:
            self.counts.ended(result.outcome)
            record = self._record(request, sent_s, timeline, result)
            self.records.append(record)
            if self._file is not None:
                await self._file.add(record)

    def _record(
        self, request: PlannedRequest, sent_s: float, timeline: Timeline, result: Result
    ) -> Record:
        counts, are_estimated = token_counts(timeline.frames, output_tokens=result.output_tokens)
        return Record(
            request_id=request.request_id,
            arrival_s=request.arrival_s,
            sent_s=sent_s,
            ended_s=self._now_s(),
            frame_times_s=[frame.at_s for frame in timeline.frames],
            token_counts=counts,
            are_counts_estimated=are_estimated,
            prompt_tokens=(
                request.prompt_tokens if result.prompt_tokens is None else result.prompt_tokens
            ),
            output_tokens=sum(counts) if result.output_tokens is None else result.output_tokens,
            pace_tok_s=self._options.pace_tok_s,
            outcome=result.outcome,
            error=result.error,
        )

    async def _sleep_until(self, at_s: float) -> bool:
        """False iff the run was stopped meanwhile."""
        self._next_send_s = at_s
        while (left_s := at_s - self._now_s()) > 0 and not self._stop.is_set():
            if left_s <= SPIN_S:
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout(left_s - SPIN_S):
                    await self._stop.wait()
            except TimeoutError:
                pass
        return not self._stop.is_set()

    async def _cancel_when_stopped(self) -> None:
        await self._stop.wait()
        for task in self._running:
            task.cancel()

    async def _keep_fresh(self, refresh: Callable[[LiveCounts, float], None]) -> None:
        drawn_s = 0.0
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = self._now_s()
            has_room = self._next_send_s - now_s > REFRESH_ROOM_S
            if has_room or now_s - drawn_s > REFRESH_S_MAX:
                refresh(self.counts, now_s)
                drawn_s = now_s
