"""Runs sessions: each arrives at its time, whatever became of the others, and each turn follows
from the one before."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.load_slo import promised
from readahead.loadgen.records import Record, RecordFile
from readahead.loadgen.request import Part, Request
from readahead.loadgen.senders import Sender, SendOptions
from readahead.loadgen.turn_run import Surroundings, TurnPlan, TurnRun
from readahead.runtime.clock import monotonic_s
from readahead.workload.session import Segment, Session

SPIN_S = 0.0015
"""The last stretch before a send is spent giving way to other tasks instead of sleeping: epoll
sleeps whole milliseconds, which alone would make every send late."""
REFRESH_S = 0.25
REFRESH_S_MAX = 2.0
"""Progress is drawn when no send is due soon, or when it has not been for this long."""
REFRESH_ROOM_S = 0.02
"""Room before the next send that a refresh needs; drawing takes a few milliseconds."""
TIDY_S_MAX = 10.0
"""Garbage is collected when no send is due soon, or when it has not been for this long."""
SWITCH_S = 0.0005
"""How long the thread that writes records may hold the interpreter while a send is due; Python's
own 5 ms would be seen in the lateness."""

Texts = Callable[[Segment], str | Sequence[int]]
"""The text of a segment, or its token ids; the same for the same segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a run does not exceed."""

    requests_max: int
    """Running at once. One more is dropped by the generator, and the run is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a run is watched and ended by. All may be left out."""

    file: RecordFile | None = None
    """Gets each record."""
    stop: asyncio.Event | None = None
    """Set, it ends the run in order."""
    refresh: Callable[[LiveCounts, float], None] | None = None
    """Draws the run so far; called when there is time for it."""


@dataclass(frozen=True, slots=True)
class _Visit:
    """A session with all its texts, made before the run so that no send waits for them."""

    index: int
    session: Session
    parts: tuple[tuple[Part, ...], ...]
    """Of each turn."""


class SessionRun:
    """One run of sessions. Times are seconds from its start."""

    def __init__(
        self,
        sender: Sender,
        options: SendOptions,
        limits: RunLimits,
        *,
        texts: Texts,
        run_id: str,
        hooks: Hooks | None = None,
    ) -> None:
        """A run that has not begun.

        Args:
            sender: an open one, whose models have been asked for.
            options: the same for all requests.
            limits: what the run does not exceed.
            texts: makes segments into prompts.
            run_id: what request ids begin with; at most 64 of [A-Za-z0-9._-].
            hooks: what watches it.
        """
        hooks = hooks or Hooks()
        self._sender = sender
        self._options = options
        self._limits = limits
        self._texts = texts
        self._run_id = run_id
        self._file = hooks.file
        self._stop = hooks.stop or asyncio.Event()
        self._refresh = hooks.refresh
        self._start = 0.0
        self._next_send_s = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self.counts = LiveCounts()
        self.records: list[Record] = []

    @property
    def is_interrupted(self) -> bool:
        """The run was told to stop before its end."""
        return self._stop.is_set()

    @property
    def start_s(self) -> float:
        """The run's start, on the machine's monotonic clock."""
        return self._start

    def now_s(self) -> float:
        """Seconds since the run's start."""
        return monotonic_s() - self._start

    async def offer(self, workload: Iterable[Session]) -> None:
        """The open loop: each session comes at its arrival. Waits for the end of all.

        Raises:
            ValueError: the workload holds something that cannot be sent.
        """
        visits = await asyncio.to_thread(self._prepare, workload)

        async def arrive(around: Surroundings) -> None:
            for visit in visits:
                if not await self._sleep_until(visit.session.arrival_s):
                    break
                if self._is_full():  # before a task is made for it: there may be very many
                    self._drop(visit.session, 0)
                else:
                    around.spawn(self._visit(visit, around))

        await self._attended(arrive)

    async def offer_closed(
        self, workload: Iterable[Session], *, users: int, duration_s: float | None = None
    ) -> None:
        """The closed loop: so many users, each with the next session as soon as his last is over.

        A slow system is offered less, so that no queue builds up: what it says of capacity and of
        waiting holds for so many users only. Sessions come in the workload's order, whatever
        their arrivals say; after `duration_s` none begins.

        Raises:
            ValueError: the workload holds something that cannot be sent.
        """
        coming = iter(await asyncio.to_thread(self._prepare, workload))

        async def one_user(around: Surroundings) -> None:
            for visit in coming:
                now_s = self.now_s()
                if duration_s is not None and now_s >= duration_s:
                    break
                session = dataclasses.replace(visit.session, arrival_s=now_s)
                await self._visit(_Visit(visit.index, session, visit.parts), around)

        async def arrive(around: Surroundings) -> None:
            for _ in range(users):
                around.spawn(one_user(around))

        await self._attended(arrive)

    async def _attended(self, arrive: Callable[[Surroundings], Awaitable[None]]) -> None:
        """Waits for the end of all that `arrive` begins, and looks after the run meanwhile."""
        with _few_pauses():
            self._start = monotonic_s()
            async with asyncio.TaskGroup() as attendants:
                watchers = [
                    attendants.create_task(self._cancel_when_stopped()),
                    attendants.create_task(self._tidy()),
                ]
                if self._refresh is not None:
                    watchers.append(attendants.create_task(self._keep_fresh(self._refresh)))
                async with asyncio.TaskGroup() as group:
                    await arrive(self._surroundings(group))
                    self._next_send_s = math.inf
                for watcher in watchers:
                    watcher.cancel()

    def _surroundings(self, group: asyncio.TaskGroup) -> Surroundings:
        def spawn(work: Coroutine[None, None, None]) -> None:
            task = group.create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        return Surroundings(
            sender=self._sender,
            options=self._options,
            counts=self.counts,
            start_s=self._start,
            spawn=spawn,
        )

    def _prepare(self, workload: Iterable[Session]) -> list[_Visit]:
        """All texts; those of equal segments are one object."""
        made: dict[Segment, Part] = {}

        def part(segment: Segment) -> Part:
            if segment not in made:
                made[segment] = Part(role="user", content=self._texts(segment))
            return made[segment]

        return [
            _Visit(
                index,
                session,
                tuple(tuple(part(one) for one in turn.segments) for turn in session.turns),
            )
            for index, session in enumerate(workload)
        ]

    async def _visit(self, visit: _Visit, around: Surroundings) -> None:
        """One session, turn by turn."""
        self.counts.sessions += 1
        session = visit.session
        due_s, context = session.arrival_s, tuple[Part, ...]()
        for number, turn in enumerate(session.turns):
            if self._is_full():
                self._drop(session, number)
                return
            parts = (*(context if turn.carries_context else ()), *visit.parts[number])
            request = self._request(visit, number, parts)
            plan = TurnPlan(session=session, turn=number, request=request, due_s=due_s)
            run = TurnRun(plan, around)
            try:
                await self._follow(run)
                next_s = run.goes_on_s
                if next_s is None:
                    self.counts.skipped += len(session.turns) - number - 1
                    return
                # Not one sleep: uvloop counts whole milliseconds and may wake a little early.
                while (left_s := next_s - self.now_s()) > 0:  # noqa: ASYNC110 - a time, no event
                    await asyncio.sleep(left_s)
            finally:
                run.close()
            due_s, context = next_s, (*parts, run.answer)

    async def _follow(self, run: TurnRun) -> None:
        try:
            await run.follow()
        finally:
            if run.record is not None:
                self.records.append(run.record)
                if self._file is not None:
                    await self._file.add(run.record)

    def _request(self, visit: _Visit, number: int, parts: tuple[Part, ...]) -> Request:
        session, turn = visit.session, visit.session.turns[number]
        tells_pace = turn.has_reader and session.reader.tells_pace
        zero_load = self._options.tells_slo
        return Request(
            request_id=f"{self._run_id}-{visit.index:06d}" + (f".{number}" if number else ""),
            parts=parts,
            output_tokens=turn.output_tokens,
            pace_tok_s=session.reader.pace_tok_s if tells_pace else None,
            user=session.user if turn.has_reader else "",
            slo=None if zero_load is None else promised(session, number, zero_load),
        )

    def _is_full(self) -> bool:
        return self.counts.running >= self._limits.requests_max

    def _drop(self, session: Session, turn: int) -> None:
        self.counts.dropped += 1
        self.counts.skipped += len(session.turns) - turn - 1

    async def _sleep_until(self, at_s: float) -> bool:
        """False iff the run was stopped meanwhile."""
        self._next_send_s = at_s
        while (left_s := at_s - self.now_s()) > 0 and not self._stop.is_set():
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

    async def _tidy(self) -> None:
        """Collects young garbage when no send is due: Python would when it pleases, and walk all
        that the run has made, which takes a tenth of a second at 2,000 streams."""
        tidied_s = 0.0
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = self.now_s()
            has_room = self._next_send_s - now_s > REFRESH_ROOM_S
            if has_room or now_s - tidied_s > TIDY_S_MAX:
                gc.collect(1)
                tidied_s = now_s

    async def _keep_fresh(self, refresh: Callable[[LiveCounts, float], None]) -> None:
        drawn_s = 0.0
        while True:
            await asyncio.sleep(REFRESH_S)
            now_s = self.now_s()
            has_room = self._next_send_s - now_s > REFRESH_ROOM_S
            if has_room or now_s - drawn_s > REFRESH_S_MAX:
                refresh(self.counts, now_s)
                drawn_s = now_s


@contextmanager
def _few_pauses() -> Iterator[None]:
    """Within, what would hold up a send is short."""
    switch_s = sys.getswitchinterval()
    gc.collect()
    gc.freeze()  # the workload lives as long as the run: a collection need not walk it
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(switch_s)
        gc.enable()
        gc.unfreeze()
