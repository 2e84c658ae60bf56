"""Gives the core its events and the time, and does what it commands."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, assert_never

import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import (
    AbortMigration,
    CancelLeg,
    Command,
    EndRequest,
    Event,
    LegFailed,
    LegRefused,
    MigrateLeg,
    ReleaseHandover,
    RenewHandover,
    RequestCancelled,
    SubmitLeg,
    TimerFired,
    WorkerDrained,
    WorkerJoined,
    WorkerLost,
)
from readahead.core.request import Leg, RequestId, WorkerId
from readahead.core.router_state import RouterState
from readahead.router import metrics, wire
from readahead.router.links import UnansweredError, WorkerLink
from readahead.router.moves import Moves
from readahead.router.outbox import LegKey
from readahead.router.reader_mail import ReaderNote
from readahead.router.request_log import log_end
from readahead.router.session import LiveSession
from readahead.runtime.clock import monotonic_s
from readahead.runtime.telemetry import attributes

_RING_EVENTS = 4096
"""Events kept for a post-mortem: some seconds of a busy router, and below 2 MB."""
_SAMPLED_ONE_IN = 16
"""Decisions timed for the metric; timing each would cost as much as the cheap ones take."""

log = structlog.get_logger()


class Driver:
    """The one owner of the router's core. Lives on one event loop; nothing here is locked.

    Events are handled where they occur, without a hop through a queue. One that occurs while
    another is handled waits for it, so the core sees them one at a time and in order.
    """

    def __init__(self, state: RouterState, *, now: Callable[[], float] = monotonic_s) -> None:
        self._state = state
        self._now = now
        self._inbox: deque[Event] = deque()
        self._is_busy = False
        self._handled = 0
        self._effects = asyncio.TaskGroup()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.ring: deque[tuple[float, Event]] = deque(maxlen=_RING_EVENTS)
        """The latest events; fed to a fresh core they give the same commands."""
        self.sessions: dict[RequestId, LiveSession] = {}
        self.links: dict[WorkerId, WorkerLink] = {}
        self.moves = Moves(
            sessions=self.sessions,
            links=self.links,
            handle=self.handle,
            tasks=self._effects,
            now=now,
        )
        self._is_idle = asyncio.Event()
        self.broken = asyncio.Event()
        """Set once the core has failed: nothing it says can be trusted any more."""

    async def __aenter__(self) -> Self:
        await self._effects.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.moves.close()
        await self._effects.__aexit__(kind, error, traceback)

    @property
    def state(self) -> RouterState:
        """For questions only; events go through `handle`."""
        return self._state

    def handle(self, *events: Event) -> None:
        """Tells the core what happened, and performs what it commands."""
        self._inbox.extend(events)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._inbox and not self.broken.is_set():
                for command in self._decide(self._inbox.popleft()):
                    self._perform(command)
        finally:
            self._is_busy = False
        self._set_timer()

    def tell_worker_of_reader(self, request_id: RequestId) -> None:
        """Has the engine that generates a request's text know how far its reader is."""
        session = self.sessions.get(request_id)
        if session is None or session.worker_id is None or session.leg is Leg.PREFILL:
            return
        if link := self.links.get(session.worker_id):
            read = session.reader.tokens_read - session.moved_tokens  # of what is made there
            note = ReaderNote(
                pace_tok_s=session.reader.clock.pace_tok_s,
                tokens_read=None if session.moved_tokens and read <= 0 else read,
                at=self._now(),
            )
            link.tell_reader(LegKey(request_id, session.leg_number), note)

    async def wait_idle(self) -> None:
        """Returns once no request is alive."""
        while self.sessions:
            self._is_idle.clear()
            await self._is_idle.wait()

    def join(self, link: WorkerLink) -> None:
        """A worker can be used, from now on or again."""
        self.links[link.worker_id] = link
        self.handle(WorkerJoined(description=link.description))

    def rest(self, link: WorkerLink) -> None:
        """A worker takes no new legs; those it has go on."""
        about = link.description
        self.handle(WorkerDrained(worker_id=about.worker_id, incarnation=about.incarnation))

    def leave(self, link: WorkerLink, cause: str) -> None:
        """A worker is gone; its legs with it."""
        if self.links.get(link.worker_id) is not link:
            return
        del self.links[link.worker_id]
        self.moves.source_lost(link)
        for session in self.sessions.values():
            if session.worker_id == link.worker_id:
                session.detach()
                session.trace.interrupt(f"worker lost: {cause}", leg=None)
        about = link.description
        self.handle(
            WorkerLost(worker_id=about.worker_id, incarnation=about.incarnation, cause=cause)
        )

    def abandon(self, message: str) -> None:
        """Ends every live request, because this router stops. Workers are told to free them."""
        for session in list(self.sessions.values()):
            reason = Reason.STREAM_BROKEN if session.output_tokens else Reason.NO_WORKER
            self._fail(session, reason, message)
            self.handle(RequestCancelled(request_id=session.request_id))

    def _decide(self, event: Event) -> list[Command]:
        now = self._now()
        self.ring.append((now, event))
        self._handled += 1
        try:
            commands = self._state.handle(event, now=now)
        except Exception:
            log.exception("core_failed", action="restart the router; report the event ring")
            self._give_up()
            return []
        if self._handled % _SAMPLED_ONE_IN == 0:
            metrics.HANDLE.observe(self._now() - now)
        return commands

    def _give_up(self) -> None:
        self.dump_ring()
        self.broken.set()
        for session in list(self.sessions.values()):
            self._fail(session, Reason.BUG, "the router has failed")

    def dump_ring(self) -> None:
        """Writes the latest events to the log."""
        log.error("event_ring_dumped", events=[f"{at:.6f} {event!r}" for at, event in self.ring])

    def _perform(self, command: Command) -> None:
        match command:
            case SubmitLeg():
                self._submit_leg(command)
            case CancelLeg():
                self._detach(command)
                if link := self.links.get(command.worker_id):
                    number = self.moves.number(command.request_id, command.attempt)
                    link.cancel(LegKey(command.request_id, number))
            case RenewHandover():
                if link := self.links.get(command.worker_id):
                    link.renew(_key(command))
            case ReleaseHandover():
                if link := self.links.get(command.worker_id):
                    link.release(_key(command))
            case MigrateLeg():
                self.moves.begin(command)
            case AbortMigration():
                self.moves.abort(command)
            case EndRequest():
                self._end_request(command)
            case _:
                assert_never(command)

    def _submit_leg(self, command: SubmitLeg) -> None:
        session = self.sessions[command.request_id]
        session.submitted(
            command.leg,
            attempt=command.attempt,
            worker_id=command.worker_id,
            now=self._now(),
        )
        session.trace.enter(
            attributes.SPAN_PREFILL if command.leg is Leg.PREFILL else attributes.SPAN_DECODE,
            attempt=command.attempt,
            worker_id=command.worker_id,
        )
        link = self.links.get(command.worker_id)
        if link is None:
            self._refuse(command, ReadaheadError(Reason.WORKER_LOST, "the worker has left"))
        else:
            self._effects.create_task(self._submit(command, session, link))

    async def _submit(self, command: SubmitLeg, session: LiveSession, link: WorkerLink) -> None:
        """Performs SubmitLeg: whatever goes wrong becomes an event."""
        try:
            message = wire.submit_to_proto(
                command.request_id,
                attempt=command.attempt,
                leg=command.leg,
                prompt_token_ids=session.call.prompt_token_ids,
                sampling=wire.sampling_to_proto(
                    session.call.sampling, max_tokens=session.max_tokens
                ),
                handover=session.handover,
            )
            wire.name_reader(
                message,
                pace_tok_s=session.reader.clock.pace_tok_s,
                age_s=(now := self._now()) - session.arrived_at,
            )
            promise = session.reader.promise
            wire.name_promise(
                message,
                None if promise is None else promise.clock,
                verdict=session.verdict,
                now=now,
            )
            await link.submit(message, session.trace.headers())
        except ReadaheadError as error:
            self._refuse(command, error)
        except UnansweredError as error:
            self._lose_leg(command, session, str(error))
        except Exception:
            log.exception("effect_failed", request_id=command.request_id)
            self.dump_ring()
            self._refuse(command, ReadaheadError(Reason.BUG, "the leg could not be submitted"))

    def _refuse(self, command: SubmitLeg, error: ReadaheadError) -> None:
        if self._detach(command):
            trace = self.sessions[command.request_id].trace
            trace.interrupt(error.message or error.reason.value, leg=command.leg)
        self.handle(
            LegRefused(
                request_id=command.request_id,
                attempt=command.attempt,
                leg=command.leg,
                worker_id=command.worker_id,
                reason=error.reason,
                message=error.message,
            )
        )

    def _lose_leg(self, command: SubmitLeg, session: LiveSession, message: str) -> None:
        """The attempt is given up, unless its output shows that the worker has it after all."""
        if session.output_tokens or not self._detach(command):
            return
        session.trace.interrupt(message, leg=None)
        self.handle(
            LegFailed(
                request_id=command.request_id,
                attempt=command.attempt,
                worker_id=command.worker_id,
                reason=Reason.WORKER_LOST,
                message=message,
            )
        )

    def _detach(self, command: SubmitLeg | CancelLeg) -> bool:
        session = self.sessions.get(command.request_id)
        is_current = (
            session is not None
            and session.attempt == command.attempt
            and session.worker_id == command.worker_id
        )
        if session is not None and is_current:
            session.detach()
        return is_current

    def _end_request(self, command: EndRequest) -> None:
        self.moves.forget(command.request_id)
        session = self.sessions.get(command.request_id)
        if session is None:
            return  # `abandon` has told the caller already
        if command.finish_reason is not None:
            session.finish(command.finish_reason, now=self._now())
            self._retire(session)
            return
        assert command.reason is not None
        self._fail(session, command.reason, command.message, retry_after_s=command.retry_after_s)

    def _fail(
        self,
        session: LiveSession,
        reason: Reason,
        message: str,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        facts = {"tokens_delivered": str(session.output_tokens)} if session.output_tokens else {}
        error = ReadaheadError(reason, message, retry_after_s=retry_after_s, metadata=facts)
        session.fail(error, now=self._now())
        self._retire(session)

    def _retire(self, session: LiveSession) -> None:
        del self.sessions[session.request_id]
        if not self.sessions:
            self._is_idle.set()
        end = session.end
        assert end is not None
        assert session.ended_at is not None
        session.trace.end(
            end,
            output_tokens=session.output_tokens,
            reading=session.reader.state(session.ended_at),
        )
        metrics.observe_end(session)
        log_end(session, end)

    def _set_timer(self) -> None:
        """Keeps a timer that fires no later than the next deadline; an early one looks again."""
        deadline = self._state.next_deadline()
        if deadline is None or self.broken.is_set():
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, deadline - self._now()), self._fire)
        self._timer_at = deadline

    def _fire(self) -> None:
        self._timer = None
        deadline = self._state.next_deadline()
        if deadline is not None and deadline <= self._now():
            self.handle(TimerFired())
        else:
            self._set_timer()


def _key(command: RenewHandover | ReleaseHandover) -> LegKey:
    return LegKey(command.request_id, command.attempt)
