"""Carries out moves of running requests from one decode worker to another.

The target keeps a seat, the source stops and offers its KV cache, the target gets the leg with all
of its output so far. The move is committed when the target's first news comes: until then the
source owns the leg, and goes on if anything fails. This router is the arbiter: it relays tokens of
the owner alone, and commits only if it has relayed exactly what the target was told of.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.messages import (
    AbortMigration,
    Event,
    MigrateLeg,
    MigrationCommitted,
    MigrationFailed,
)
from readahead.core.request import Leg, RequestId, WorkerId
from readahead.router import metrics, wire
from readahead.router.links import Stopped, UnansweredError, WorkerLink
from readahead.router.outbox import LegKey, leg_number
from readahead.router.session import LiveSession
from readahead.runtime.telemetry import attributes
from readahead.v1 import worker_service_pb2 as pb

MOVE_S_MAX = 10.0
"""Longest move, from its decision to its commit; a reader waits for most of it. Workers keep seats
for as long, and let a stopped leg go on by itself after more."""

log = structlog.get_logger()


class MoveStage(StrEnum):
    """How far a move has come. Each is also a point at which tests have something fail."""

    CHOSEN = "chosen"
    """Nobody has been told."""
    RESERVED = "reserved"
    """The target keeps a seat; the source goes on."""
    STOPPED = "stopped"
    """The source makes no more tokens, and offers its KV cache."""
    CAUGHT_UP = "caught_up"
    """All tokens of the source are relayed."""
    SUBMITTED = "submitted"
    """The target has taken the leg. Without the source it now goes on from the text alone."""
    COMMITTED = "committed"
    """The target owns the leg; its first token is about to be relayed."""


@dataclass(slots=True, eq=False, kw_only=True)
class _Move:
    command: MigrateLeg
    session: LiveSession
    source: WorkerLink
    target: WorkerLink
    source_key: LegKey
    target_key: LegKey
    stage: MoveStage = MoveStage.CHOSEN
    is_asked_to_stop: bool = False
    output_tokens: int = -1
    """What the target is told of; -1: nothing yet."""
    stopped_at: float = 0.0
    task: asyncio.Task[None] | None = None
    has_progressed: asyncio.Event = field(default_factory=asyncio.Event)
    """The source's tokens have come, or the commit has."""


class Moves:
    """The moves of one router. Lives on the driver's loop."""

    def __init__(
        self,
        *,
        sessions: Mapping[RequestId, LiveSession],
        links: Mapping[WorkerId, WorkerLink],
        handle: Callable[[Event], None],
        tasks: asyncio.TaskGroup,
        now: Callable[[], float],
    ) -> None:
        self._sessions, self._links = sessions, links
        self._handle, self._tasks, self._now = handle, tasks, now
        self._under_way: dict[RequestId, _Move] = {}
        self._numbers: dict[RequestId, tuple[int, int]] = {}
        """Attempt and leg number of requests that have moved."""
        self.on_stage: Callable[[MoveStage, MigrateLeg], None] = _nothing
        """Told of each stage as it is reached."""

    def __len__(self) -> int:
        return len(self._under_way)

    # What the core commands

    def begin(self, command: MigrateLeg) -> None:
        """Performs MigrateLeg: it is answered by an event, whatever goes wrong."""
        session = self._sessions.get(command.request_id)
        source, target = self._links.get(command.source), self._links.get(command.target)
        if session is None or source is None or target is None:
            self._answer_failed(command, ReadaheadError(Reason.WORKER_LOST, "a worker has left"))
        elif not (source.moves_legs and target.moves_legs):
            message = "the KV transport of these workers moves no running request"
            self._answer_failed(command, ReadaheadError(Reason.UNSUPPORTED, message))
        else:
            request_id, attempt = command.request_id, command.attempt
            move = _Move(
                command=command,
                session=session,
                source=source,
                target=target,
                source_key=LegKey(request_id, session.leg_number),
                target_key=LegKey(request_id, leg_number(attempt, move=command.move)),
            )
            self._under_way[request_id] = move
            move.task = self._tasks.create_task(self._carry_out(move))

    def abort(self, command: AbortMigration) -> None:
        """Performs AbortMigration: the target frees what it has, the source goes on."""
        move = self._under_way.get(command.request_id)
        if move is not None and move.command.move == command.move:
            assert move.task is not None
            move.task.cancel()
            self._call_back(move)
            metrics.MOVES.labels("called_off").inc()

    def number(self, request_id: RequestId, attempt: int) -> int:
        """What the worker that has a leg knows as its attempt."""
        moved_attempt, number = self._numbers.get(request_id, (0, 0))
        return number if moved_attempt == attempt else attempt

    def forget(self, request_id: RequestId) -> None:
        """The request has ended."""
        self._numbers.pop(request_id, None)

    def close(self) -> None:
        """Leaves all as it is: the workers let go when the connections end."""
        for move in self._under_way.values():
            if move.task is not None:
                move.task.cancel()

    # What workers say

    def takes_over(self, session: LiveSession, link: WorkerLink, delta: pb.LegDelta) -> bool:
        """Commits the session's move iff this is the first news of its target.

        Returns:
            Whether the news is of the session's leg now.
        """
        move = self._under_way.get(session.request_id)
        if move is None or move.target is not link or move.target_key.attempt != delta.attempt:
            return False
        if delta.HasField("end") and wire.finish_from_proto(delta.end.reason) is None:
            self._fail(move, ReadaheadError(*wire.error_from_proto(delta.end)))
            return False
        if session.output_tokens != move.output_tokens:
            self._fail(move, ReadaheadError(Reason.STREAM_BROKEN, "the source has gone on"))
            return False
        metrics.MOVE_DOWNTIME.observe(self._now() - move.stopped_at)
        self._commit(move, outcome="committed")
        return session.worker_id == link.worker_id

    def survives(self, session: LiveSession) -> bool:
        """Commits the session's move, since its source is lost: iff the target has the leg."""
        move = self._under_way.get(session.request_id)
        if move is None or move.stage is not MoveStage.SUBMITTED:
            return False
        if session.output_tokens != move.output_tokens:  # the source has gone on
            return False
        self._commit(move, outcome="survived")
        return True

    def source_lost(self, link: WorkerLink) -> None:
        """Commits the moves off a worker that is gone, where the target has the leg."""
        for move in [each for each in self._under_way.values() if each.source is link]:
            self.survives(move.session)

    def relayed(self) -> None:
        """Tokens have been relayed. Called with each step while there are moves."""
        for move in self._under_way.values():
            is_behind = move.session.output_tokens < move.output_tokens
            if move.stage is MoveStage.STOPPED and not is_behind:
                move.has_progressed.set()

    # One move

    async def _carry_out(self, move: _Move) -> None:
        try:
            async with asyncio.timeout(MOVE_S_MAX):
                await self._steps(move)
        except TimeoutError:
            message = f"it took more than {MOVE_S_MAX:g} s"
            self._fail(move, ReadaheadError(Reason.DEADLINE_EXCEEDED, message))
        except UnansweredError as error:
            self._fail(move, ReadaheadError(Reason.WORKER_LOST, str(error)))
        except ReadaheadError as error:
            self._fail(move, error)
        except Exception:
            log.exception("move_failed", request_id=move.command.request_id)
            self._fail(move, ReadaheadError(Reason.BUG, "the move could not be carried out"))

    async def _steps(self, move: _Move) -> None:
        session = move.session
        self._reach(move, MoveStage.CHOSEN)
        context_tokens = session.prompt_tokens + session.output_tokens
        await move.target.reserve_leg(move.target_key, context_tokens=context_tokens)
        self._reach(move, MoveStage.RESERVED)
        move.is_asked_to_stop = True
        stopped = await move.source.stop_leg(move.source_key, move=move.command.move)
        move.stopped_at = self._now()
        move.output_tokens = len(stopped.output_token_ids)
        self._reach(move, MoveStage.STOPPED)
        while session.output_tokens < move.output_tokens:  # they come by another stream
            move.has_progressed.clear()
            await move.has_progressed.wait()
        self._reach(move, MoveStage.CAUGHT_UP)
        await move.target.submit(self._leg(move, stopped), session.trace.headers())
        if self._is_under_way(move):
            self._reach(move, MoveStage.SUBMITTED)
        while self._is_under_way(move):
            move.has_progressed.clear()
            await move.has_progressed.wait()

    def _leg(self, move: _Move, stopped: Stopped) -> pb.SubmitRequest:
        """The whole request, what has come of it, and where the KV cache of both is."""
        session, clock = move.session, move.session.reader.clock
        message = wire.submit_to_proto(
            session.request_id,
            attempt=move.target_key.attempt,
            leg=Leg.DECODE,
            prompt_token_ids=session.call.prompt_token_ids,
            sampling=wire.sampling_to_proto(session.call.sampling, max_tokens=session.max_tokens),
            handover=stopped.handover,
        )
        message.output_token_ids.extend(stopped.output_token_ids)
        due_in_s = clock.deadline_s - self._now()
        wire.name_reader(
            message, pace_tok_s=clock.pace_tok_s, age_s=1 / clock.pace_tok_s - due_in_s
        )
        promise = session.reader.promise
        wire.name_promise(
            message,
            None if promise is None else promise.clock,
            verdict=session.verdict,
            now=self._now(),
        )
        return message

    def _reach(self, move: _Move, stage: MoveStage) -> None:
        move.stage = stage
        move.session.trace.moving(stage, target=move.command.target)
        self.on_stage(stage, move.command)

    def _is_under_way(self, move: _Move) -> bool:
        return self._under_way.get(move.command.request_id) is move

    def _commit(self, move: _Move, *, outcome: str) -> None:
        command, session = move.command, move.session
        del self._under_way[command.request_id]
        move.has_progressed.set()
        self._numbers[command.request_id] = command.attempt, move.target_key.attempt
        session.moved(leg_number=move.target_key.attempt, worker_id=command.target)
        session.trace.enter(
            attributes.SPAN_DECODE, attempt=command.attempt, worker_id=command.target
        )
        move.source.cancel(move.source_key)
        metrics.MOVES.labels(outcome).inc()
        self._handle(
            MigrationCommitted(
                request_id=command.request_id,
                attempt=command.attempt,
                move=command.move,
                source=command.source,
                target=command.target,
            )
        )
        self._reach(move, MoveStage.COMMITTED)

    def _fail(self, move: _Move, error: ReadaheadError) -> None:
        """The source goes on; unless the move is over already."""
        if self._is_under_way(move):
            self._call_back(move)
            self._answer_failed(move.command, error)

    def _call_back(self, move: _Move) -> None:
        del self._under_way[move.command.request_id]
        move.has_progressed.set()
        move.session.trace.moving("called_off", target=move.command.target)
        move.target.cancel(move.target_key)
        if move.is_asked_to_stop:
            move.source.resume(move.source_key, move=move.command.move)

    def _answer_failed(self, command: MigrateLeg, error: ReadaheadError) -> None:
        metrics.MOVES.labels(error.reason.lower()).inc()
        self._handle(
            MigrationFailed(
                request_id=command.request_id,
                attempt=command.attempt,
                move=command.move,
                source=command.source,
                target=command.target,
                reason=error.reason,
                message=error.message,
            )
        )


def _nothing(stage: MoveStage, command: MigrateLeg) -> None:
    """Nobody wants to know."""
