"""One request of a session, with its reader: sent, followed, recorded."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from readahead.loadgen.attendant import Attendant
from readahead.loadgen.live import LiveCounts
from readahead.loadgen.records import Outcome, Reading, Record, Visit
from readahead.loadgen.request import Part, Request
from readahead.loadgen.senders import Cause, Result, Sender, SendOptions
from readahead.loadgen.timeline import Timeline, token_counts
from readahead.runtime.clock import monotonic_s
from readahead.workload.reading_run import Leaving, ReaderRun
from readahead.workload.session import Pause, Session, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPlan:
    """What is to be sent, and of which session it is."""

    session: Session
    turn: int
    request: Request
    due_s: float
    """Intended send time, from the run's start."""

    @property
    def planned(self) -> Turn:
        """The turn as it was planned."""
        return self.session.turns[self.turn]

    @property
    def following(self) -> Turn | None:
        """The turn after it; None: it is the last."""
        rest = self.session.turns[self.turn + 1 :]
        return rest[0] if rest else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all turns of a run share."""

    sender: Sender
    options: SendOptions
    counts: LiveCounts
    start_s: float
    """The run's start on the machine's monotonic clock."""
    spawn: Callable[[Coroutine[None, None, None]], object]
    """Runs something beside the requests, until the run's end at most."""


class TurnRun:
    """One request and its reader, from the send until he has read what he gets."""

    def __init__(self, plan: TurnPlan, around: Surroundings) -> None:
        self._plan = plan
        self._around = around
        self._left: Leaving | None = None
        self._scope: asyncio.Timeout | None = None
        self.reader: ReaderRun | None = None
        self._attendant: Attendant | None = None
        if plan.planned.has_reader:
            self.reader = ReaderRun(
                plan.session.reader,
                commit_s=plan.due_s,
                thinking_tokens=plan.planned.thinking_tokens,
            )
        following = plan.following
        self._timeline = Timeline(
            arrival_s=plan.due_s,
            start_s=around.start_s,
            counts=around.counts,
            on_tokens=self._on_tokens if self.reader is not None else None,
            keeps_answer=following is not None and following.carries_context,
        )
        self.record: Record | None = None
        """Once the request is over, however it ended."""

    @property
    def answer(self) -> Part:
        """What the system said, for the next turn's prompt: ids where the prompt was ids."""
        timeline = self._timeline
        is_ids = self._plan.request.token_ids is not None
        return Part(
            role="assistant", content=timeline.token_ids if is_ids else "".join(timeline.text)
        )

    @property
    def goes_on_s(self) -> float | None:
        """When the next turn is due; None: the session ends here."""
        record, following, reader = self.record, self._plan.following, self.reader
        if record is None or following is None or record.outcome is not Outcome.FINISHED:
            return None
        if reader is None or following.pause_from is Pause.ENDED:
            return record.ended_s + following.pause_s
        # One who stops reading before the end leaves then, however early the text was there.
        if reader.read_enough_s < math.inf:
            return None
        return reader.finished_reading_s + following.pause_s

    async def follow(self) -> None:
        """Sends the request and follows it to its end; leaves `record`, cancelled or not."""
        plan, around = self._plan, self._around
        sent_s = self._now_s()
        result = Result(outcome=Outcome.CANCELLED, cause=Cause.INTERRUPTED)
        around.counts.started()
        self._attend()
        try:
            async with asyncio.timeout(None) as self._scope:
                result = await around.sender.send(plan.request, around.options, self._timeline)
        except TimeoutError:
            if self._left is None:
                raise
            result = Result(outcome=Outcome.CANCELLED, cause=self._left)
        finally:
            self._scope = None
            self._end(sent_s, result)

    def close(self) -> None:
        """The reader is through, or gone."""
        if self._attendant is not None:
            self._attendant.close()

    def _now_s(self) -> float:
        return monotonic_s() - self._around.start_s

    def _attend(self) -> None:
        if self.reader is None:
            return
        plan = self._plan
        self._around.counts.reads(
            plan.request.request_id, self.reader, pace_tok_s=plan.session.reader.pace_tok_s
        )
        self._attendant = Attendant(
            self.reader,
            clock=self._now_s,
            leave=self._leave,
            report=self._report if self._around.sender.is_ours else None,
        )

    def _on_tokens(self, tokens: int, at_s: float) -> None:
        if self._attendant is not None:
            self._attendant.on_tokens(tokens, at_s)

    def _leave(self, leaving: Leaving) -> None:
        if self._scope is not None:
            self._left = leaving
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _report(self, position: int) -> None:
        request_id = self._plan.request.request_id
        self._around.spawn(self._send_report(request_id, position))

    async def _send_report(self, request_id: str, position: int) -> None:
        await self._around.sender.report_reading(request_id, position)

    def _end(self, sent_s: float, result: Result) -> None:
        ended_s = self._now_s()
        self._around.counts.ended(result.outcome)
        if self.reader is not None:
            self.reader.end(now=ended_s, is_complete=result.outcome is Outcome.FINISHED)
            self._around.counts.stopped_reading(self._plan.request.request_id, ended_s)
        self.record = self._record(sent_s, ended_s, result)

    def _record(self, sent_s: float, ended_s: float, result: Result) -> Record:
        plan, timeline = self._plan, self._timeline
        session, turn = plan.session, plan.planned
        counts, are_estimated = token_counts(
            timeline.tokens, timeline.characters, output_tokens=result.output_tokens
        )
        prompt_tokens = result.prompt_tokens or timeline.prompt_tokens
        return Record(
            request_id=plan.request.request_id,
            arrival_s=plan.due_s,
            sent_s=sent_s,
            ended_s=ended_s,
            frame_times_s=timeline.times_s,
            token_counts=counts,
            are_counts_estimated=are_estimated,
            prompt_tokens=prompt_tokens or session.prompt_tokens(plan.turn),
            output_tokens=sum(counts) if result.output_tokens is None else result.output_tokens,
            pace_tok_s=session.reader.pace_tok_s if self.reader is not None else None,
            outcome=result.outcome,
            error=result.error,
            cause=result.cause,
            verdict=result.verdict,
            visit=Visit(
                session_id=session.session_id,
                turn=plan.turn,
                scenario=session.scenario,
                tenant=session.tenant,
                user=session.user,
                thinking_tokens=turn.thinking_tokens,
                has_reader=turn.has_reader,
                slo=turn.slo,
            ),
            reading=None if self.reader is None else self._reading(self.reader, ended_s),
        )

    def _reading(self, reader: ReaderRun, ended_s: float) -> Reading:
        request = self._plan.request
        reads_all = reader.delivered and self._left is None and reader.read_enough_s == math.inf
        return Reading(
            idle_s=reader.idle_s(ended_s),
            stalls=reader.stalls,
            read_tokens=reader.read_tokens(ended_s),
            finished_s=reader.finished_reading_s if reads_all else None,
            reports=reader.reports,
            is_pace_told=request.pace_tok_s is not None and self._around.sender.is_ours,
        )
