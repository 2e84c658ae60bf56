"""The reader of one request: how far he is, when he runs out of text, how long he has waited."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from readahead.core.messages import ReadingState
from readahead.core.reading.clock import ReadingClock
from readahead.core.reading.pace import PaceSource, Scenario
from readahead.core.reading.pace_evidence import ReadingTracker
from readahead.core.reading.pace_posterior import PaceSample, Population
from readahead.core.reading.pace_users import UserPaces
from readahead.core.request import RequestId
from readahead.router.promises import SessionPromise
from readahead.router.sessions import Call

if TYPE_CHECKING:
    from readahead.router.traces import RequestTrace


class Reader:
    """Keeps a request's reading clock, from its arrival until long after its end.

    Text counts as delivered when its frame is handed to the transport, since what waits for a
    frame is of no use to him. His waits are counted, and told to the trace, when they are over:
    by the next frame, or by the end of the request.
    """

    __slots__ = (
        "_ended_idle_s",
        "_trace",
        "_tracker",
        "clock",
        "pace_source",
        "promise",
        "stalls",
        "tokens_read",
        "user_id",
    )

    def __init__(
        self,
        clock: ReadingClock,
        *,
        pace_source: PaceSource,
        user_id: str = "",
        trace: RequestTrace | None = None,
    ) -> None:
        self.clock = clock
        self.pace_source = pace_source
        self.user_id = user_id
        self.promise: SessionPromise | None = None
        """What he was promised, if anything."""
        self.stalls = 0
        """Waits that are over, one for the first token included."""
        self.tokens_read = 0
        """As last reported."""
        self._tracker = ReadingTracker() if user_id else None
        self._trace = trace
        self._ended_idle_s: float | None = None

    def deliver(self, tokens: int, *, now: float) -> None:
        """A frame is handed to the transport."""
        if self._tracker is not None:
            self._tracker.deliver(tokens, now=now)
        stall_s = self.clock.deliver(tokens, now=now)
        if stall_s > 0:
            self._count_stall(stall_s, now)

    def conclude(self, tokens: int, *, is_complete: bool, now: float) -> None:
        """The request ends, and its last frame goes out without a wait. Called once.

        Who waits for an answer that breaks off has waited until now.
        """
        self.deliver(tokens, now=now)
        waited_s = self.clock.idle_s(now)
        finished_s = self.clock.idle_s(min(now, self.clock.deadline_s))
        if not is_complete and waited_s > finished_s:
            self._count_stall(waited_s - finished_s, now, is_resumed=False)
        self._ended_idle_s = finished_s if is_complete else waited_s
        self._trace = None  # what is kept after the end is the clock

    def acknowledge(self, tokens_read: int, *, now: float) -> PaceSample | None:
        """He says that he has come to this many tokens. Returns what that says of his pace, if
        anything, and if he has a name to learn it under."""
        self.tokens_read = max(self.tokens_read, tokens_read)
        self.clock.acknowledge(tokens_read, now=now)
        if self._tracker is None:
            return None
        return self._tracker.acknowledge(tokens_read, now=now)

    def idle_s(self, now: float) -> float:
        """Seconds that he has waited for text; nobody waits after the end."""
        if self._ended_idle_s is not None:
            return self._ended_idle_s
        return self.clock.idle_s(now)

    def state(self, now: float) -> ReadingState:
        """For Explain, and for the last frame."""
        clock = self.clock
        has_ended = self._ended_idle_s is not None
        slack_s = clock.slack_s(now)
        return ReadingState(
            pace_tok_s=clock.pace_tok_s,
            pace_source=self.pace_source,
            unread_tokens=clock.unread_tokens(now),
            slack_s=max(0.0, slack_s) if has_ended else slack_s,
            idle_s=self.idle_s(now),
            stalls=self.stalls + (slack_s < 0 and not has_ended),
        )

    def _count_stall(self, stall_s: float, now: float, *, is_resumed: bool = True) -> None:
        self.stalls += 1
        if self._trace is not None:
            self._trace.stalled(stall_s, is_resumed=is_resumed)


class Readers:
    """The latest readers by request, and what is known of the paces of users.

    People read on after the end of an answer, so readers of ended requests are kept too; the
    oldest go first beyond `readers_max`.
    """

    def __init__(self, *, readers_max: int, default_tok_s: float) -> None:
        self._readers_max = readers_max
        self._readers: OrderedDict[RequestId, Reader] = OrderedDict()
        self._paces = UserPaces(population=Population(mean_tok_s=default_tok_s))
        self._default_tok_s = default_tok_s

    def open(self, call: Call, *, trace: RequestTrace, now: float) -> Reader:
        """The reader of a request that arrives now. An id may come again: the new one counts."""
        pace_tok_s, source = self._pace(call.user_id, call.pace_tok_s, call.scenario)
        reader = Reader(
            ReadingClock(pace_tok_s=pace_tok_s, commit_s=now),
            pace_source=source,
            user_id=call.user_id,
            trace=trace,
        )
        self._readers[call.request_id] = reader
        self._readers.move_to_end(call.request_id)
        if len(self._readers) > self._readers_max:
            self._readers.popitem(last=False)
        return reader

    def get(self, request_id: RequestId) -> Reader | None:
        """One that is still remembered."""
        return self._readers.get(request_id)

    def acknowledge(self, reader: Reader, tokens_read: int, *, now: float) -> None:
        """He says that he has come to this many tokens; what that says of his pace is learnt."""
        sample = reader.acknowledge(tokens_read, now=now)
        if sample is None:
            return
        self._paces.learn(reader.user_id, sample)
        learnt_tok_s = self._paces.learnt_tok_s(reader.user_id)
        if learnt_tok_s is not None and reader.pace_source is not PaceSource.EXPLICIT:
            reader.clock.change_pace(learnt_tok_s, now=now)
            reader.pace_source = PaceSource.LEARNT

    def _pace(
        self, user_id: str, explicit_tok_s: float | None, scenario: Scenario | None
    ) -> tuple[float, PaceSource]:
        choice = self._paces.choose(
            user_id,
            explicit_tok_s=explicit_tok_s,
            scenario=scenario,
            default_tok_s=self._default_tok_s,
        )
        # No front door has a scenario that nobody reads.
        return choice.pace_tok_s or self._default_tok_s, choice.source
