"""Users in virtual time: when they ask, what they read, and when they leave."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Protocol

from readahead.core.messages import (
    EndRequest,
    Event,
    ReadingReported,
    RequestArrived,
    RequestCancelled,
)
from readahead.core.reading.timeline import Outcome
from readahead.core.request import RequestId, Stage
from readahead.sim.asked import AskedRequest, EndedRequest, ReaderWatch
from readahead.sim.cluster import ClusterSpec
from readahead.sim.kernel import Kernel
from readahead.workload.session import Pause, Session

OUTCOMES = {
    Stage.FINISHED: Outcome.FINISHED,
    Stage.CANCELLED: Outcome.CANCELLED,
    Stage.FAILED: Outcome.FAILED,
    Stage.REJECTED: Outcome.REJECTED,
}


class RequestSink(Protocol):
    """Who gets the requests as they end."""

    def ended(self, request: EndedRequest) -> None:
        """A request is over."""
        ...


class Users:
    """All sessions of a run."""

    def __init__(
        self,
        spec: ClusterSpec,
        sessions: Iterable[Session],
        *,
        kernel: Kernel,
        sink: RequestSink,
        tell: Callable[[Event], None],
    ) -> None:
        """Sessions must come in order of arrival. Where they have a `concurrency` (as a Workload
        has), so many are there at any time, and their times of arrival mean nothing."""
        self.asked: dict[RequestId, AskedRequest] = {}
        """Requests that are under way."""
        self._spec = spec
        self._sessions: Iterator[Session] = iter(sessions)
        self._concurrency: int | None = getattr(sessions, "concurrency", None)
        self._kernel = kernel
        self._sink = sink
        self._tell = tell
        self._has_begun = False

    def begin(self) -> None:
        """Lets the first ones come. In an open loop that is when they arrive; in a closed one as
        many as may at once, and another whenever one has gone."""
        if self._has_begun:
            return
        self._has_begun = True
        for _ in range(self._concurrency or 1):
            self._await_session()

    def _await_session(self) -> None:
        session = next(self._sessions, None)
        if session is None:
            return
        if self._concurrency is not None:
            self._ask(session, 0, (), 0)
            return
        at_s = session.arrival_s
        if at_s < self._kernel.now_s:
            raise ValueError(f"session {session.session_id} arrives at {at_s} s, after a later one")
        self._kernel.at(at_s, partial(self._arrive, session))

    def _arrive(self, session: Session) -> None:
        self._await_session()
        self._ask(session, 0, (), 0)

    def _ask(
        self,
        session: Session,
        index: int,
        context: tuple[tuple[str, int], ...],
        context_tokens: int,
    ) -> None:
        """A user sends a turn; `context` is the prompt and the answer of the one before."""
        turn, reader = session.turns[index], session.reader
        now_s = self._kernel.now_s
        own = tuple((segment.key, segment.tokens) for segment in turn.segments)
        carried = context_tokens if turn.carries_context else 0
        spec = self._spec
        asked = AskedRequest(
            request_id=RequestId(
                session.session_id if len(session.turns) == 1 else f"{session.session_id}.{index}"
            ),
            session=session,
            index=index,
            arrival_s=now_s,
            prompt_tokens=carried + turn.own_tokens,
            output_tokens=turn.output_tokens,
            output_tokens_max=(
                turn.output_tokens if spec.tells_true_length else spec.output_tokens_max
            ),
            pace_tok_s=reader.pace_tok_s if reader.tells_pace else spec.core.reading.pace_tok_s,
            prefix=(*context, *own) if turn.carries_context else own,
        )
        if turn.has_reader and _is_worth_watching(session, index):
            asked.watch = ReaderWatch(reader, commit_s=now_s, thinking_tokens=turn.thinking_tokens)
        self.asked[asked.request_id] = asked
        self._tell(
            RequestArrived(
                request_id=asked.request_id,
                prompt_tokens=asked.prompt_tokens,
                output_tokens_max=asked.output_tokens_max,
                pace_tok_s=asked.pace_tok_s,
            )
        )
        if asked.watch is not None and asked.request_id in self.asked:
            self._look_later(asked, asked.watch)

    def _look_later(self, asked: AskedRequest, watch: ReaderWatch) -> None:
        at_s = watch.next_s(self._kernel.now_s)
        watch.due = None if at_s == math.inf else self._kernel.at(at_s, partial(self._look, asked))

    def _look(self, asked: AskedRequest) -> None:
        """The reader may want to say something, or to leave."""
        watch, now_s = asked.watch, self._kernel.now_s
        assert watch is not None
        self._catch_up(asked, watch)
        read = watch.run.report(now_s)
        if read is not None:
            self._tell(ReadingReported(request_id=asked.request_id, tokens_read=read))
        if watch.run.leaves_at_s <= now_s:
            self._tell(RequestCancelled(request_id=asked.request_id))
        elif asked.request_id in self.asked:
            self._look_later(asked, watch)

    def _catch_up(self, asked: AskedRequest, watch: ReaderWatch) -> None:
        part = None
        if asked.engine is not None and asked.engine.is_alive:
            part = asked.engine.part_in_progress((asked.request_id, asked.attempt))
        watch.take_in(asked, part)

    def ended(self, command: EndRequest) -> None:
        """A request is over. Whoever does not get his answer does not come back."""
        asked = self.asked.pop(command.request_id)
        now_s, watch = self._kernel.now_s, asked.watch
        turns, index = asked.session.turns, asked.index
        times_s = asked.token_times_s()
        self._sink.ended(
            EndedRequest(
                request_id=asked.request_id,
                session_id=asked.session.session_id,
                scenario=asked.session.scenario,
                tenant=asked.session.tenant,
                turn=index,
                arrival_s=asked.arrival_s,
                ended_s=now_s,
                token_times_s=times_s,
                prompt_tokens=asked.prompt_tokens,
                pace_tok_s=asked.session.reader.pace_tok_s if asked.turn.has_reader else None,
                outcome=OUTCOMES[command.stage],
                error=f"{command.reason}: {command.message}" if command.reason else None,
                attempts=asked.attempt,
                slo=asked.turn.slo,
                thinking_tokens=asked.turn.thinking_tokens,
                has_reader=asked.turn.has_reader,
            )
        )
        if watch is not None:
            if watch.due is not None:
                self._kernel.cancel(watch.due)
            watch.take_in(asked, None)
            watch.run.end(now=now_s, is_complete=command.stage is Stage.FINISHED)
        if command.stage is not Stage.FINISHED or index + 1 == len(turns):
            if self._concurrency is not None:
                self._kernel.at(now_s, self._await_session)
            return
        following = turns[index + 1]
        has_read_s = now_s
        if following.pause_from is Pause.READ and watch is not None:
            has_read_s = max(now_s, watch.run.finished_reading_s)
        answer = (answer_key(asked.session, index), len(times_s))
        self._kernel.at(
            has_read_s + following.pause_s,
            partial(
                self._ask,
                asked.session,
                index + 1,
                (*asked.prefix, answer),
                asked.prompt_tokens + len(times_s),
            ),
        )


def _is_worth_watching(session: Session, index: int) -> bool:
    """Whether what the reader does matters before the end: else the score follows him alone."""
    reader, turns = session.reader, session.turns
    return (
        reader.patience_s is not None
        or reader.leaves_after_tokens is not None
        or reader.report_every_s is not None
        or (index + 1 < len(turns) and turns[index + 1].pause_from is Pause.READ)
    )


def answer_key(session: Session, index: int) -> str:
    """The answer's key as a segment of later prompts."""
    return f"{session.session_id}/answer/{index}"
