"""Finds, in a run's log, the two tricks that make the usual numbers better than what users got.

Both searches would rather miss a case than accuse an honest run; what each can see is said where
it is done. The report goes beside the score and changes none of its numbers.

Ref: [SmoothGoodput] output delay and proactive abandonment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from readahead.core.reading.curves import Curve, TtftTbt
from readahead.core.reading.timeline import Timeline
from readahead.core.reading.tricks_abandonment import (
    AT_ONCE_REQUESTS_MIN,
    AT_ONCE_SHARE_MIN,
    CutOff,
    cut_off,
)
from readahead.core.reading.tricks_delay import Held, PacingSearch, held

FINDINGS_MAX = 1000
"""Most findings of a kind that are listed; all are counted."""


class Trick(StrEnum):
    """What was done."""

    OUTPUT_DELAY = "output_delay"
    ABANDONMENT = "abandonment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A trick played on one request."""

    trick: Trick
    request_id: str
    tokens: int
    """Held back; or delivered before the answer was cut off."""
    seconds: float
    """Longest that one token was held, 0 where the log does not say; or from the arrival to the
    end."""
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TricksReport:
    """What was found in a run."""

    requests: int
    delayed_requests: int
    """Their tokens were held after they existed."""
    held_tokens: int
    cut_off_requests: int
    """Ended by the system or the user in the middle of the answer, after their SLO was missed."""
    dropped_requests: int
    """Ended without a token, after their SLO was missed."""
    is_abandoning: bool
    """Those ends follow upon the miss too closely to be the users'."""
    findings: tuple[Finding, ...]
    """At most FINDINGS_MAX of each trick."""

    @property
    def is_delaying(self) -> bool:
        """Whether output was delayed."""
        return self.delayed_requests > 0

    def lines(self) -> list[str]:
        """The report in sentences, for people; empty if there is nothing to say."""
        told = []
        if self.is_delaying:
            told.append(
                f"output delay: {self.held_tokens} tokens of {self.delayed_requests} of"
                f" {self.requests} requests were held back after they existed"
            )
        ended = (
            f"{self.cut_off_requests} answers cut off and {self.dropped_requests} requests dropped"
            f" after their SLO was missed"
        )
        if self.is_abandoning:
            told.append(f"abandonment: {ended}, as soon as it was")
        elif self.cut_off_requests or self.dropped_requests:
            told.append(f"{ended}; nothing says that the system did it to score better")
        return told


class TricksSearch:
    """Looks through a run, one request at a time, in bounded memory.

    `slo` is the promise of requests that do not state theirs; where neither does, nothing is known
    of misses. `tbt_s` is the TBT threshold that pacing would aim at, by default that of the SLO if
    it has one; it matters only where the log does not say when tokens existed.
    """

    def __init__(self, *, slo: Curve | None = None, tbt_s: float | None = None) -> None:
        self._slo = slo
        self._tbt_s = tbt_s
        self._requests = 0
        self._held: list[Held] = []
        self._delayed_requests = 0
        self._held_tokens = 0
        self._pacing = PacingSearch()
        self._cut_off_requests = 0
        self._dropped_requests = 0
        self._at_once_requests = 0
        self._cut_offs: list[CutOff] = []

    def add(self, timeline: Timeline) -> None:
        """One more request."""
        self._requests += 1
        slo = timeline.slo or self._slo
        if timeline.made_times_s is not None:
            self._add_held(held(timeline))
        elif (tbt_s := self._threshold_s(slo)) is not None:
            self._pacing.add(timeline, tbt_s=tbt_s)
        if slo is not None:
            self._add_cut_off(cut_off(timeline, slo))

    def report(self) -> TricksReport:
        """What was found so far."""
        paced = self._pacing.found()
        delays = [*self._held, *paced][:FINDINGS_MAX]
        ended = self._cut_off_requests + self._dropped_requests
        is_abandoning = self._at_once_requests >= max(
            AT_ONCE_REQUESTS_MIN, AT_ONCE_SHARE_MIN * ended
        )
        return TricksReport(
            requests=self._requests,
            delayed_requests=self._delayed_requests + len(paced),
            held_tokens=self._held_tokens + sum(one.tokens for one in paced),
            cut_off_requests=self._cut_off_requests,
            dropped_requests=self._dropped_requests,
            is_abandoning=is_abandoning,
            findings=(
                *(_delay_finding(one) for one in delays),
                *(_abandonment_finding(one) for one in self._cut_offs if is_abandoning),
            ),
        )

    def _add_held(self, found: Held | None) -> None:
        if found is None:
            return
        self._delayed_requests += 1
        self._held_tokens += found.tokens
        if len(self._held) < FINDINGS_MAX:
            self._held.append(found)

    def _add_cut_off(self, found: CutOff | None) -> None:
        if found is None:
            return
        self._cut_off_requests += found.tokens > 0
        self._dropped_requests += found.tokens == 0
        self._at_once_requests += found.is_at_once
        if len(self._cut_offs) < FINDINGS_MAX:
            self._cut_offs.append(found)

    def _threshold_s(self, slo: Curve | None) -> float | None:
        if self._tbt_s is None and isinstance(slo, TtftTbt):
            return slo.tbt_s
        return self._tbt_s


def find_tricks(
    timelines: Iterable[Timeline], *, slo: Curve | None = None, tbt_s: float | None = None
) -> TricksReport:
    """Both searches over a whole run; the arguments are those of TricksSearch."""
    search = TricksSearch(slo=slo, tbt_s=tbt_s)
    for timeline in timelines:
        search.add(timeline)
    return search.report()


def _delay_finding(found: Held) -> Finding:
    return Finding(
        trick=Trick.OUTPUT_DELAY,
        request_id=found.request_id,
        tokens=found.tokens,
        seconds=found.longest_s,
        evidence=found.evidence,
    )


def _abandonment_finding(found: CutOff) -> Finding:
    return Finding(
        trick=Trick.ABANDONMENT,
        request_id=found.request_id,
        tokens=found.tokens,
        seconds=found.waited_s,
        evidence=found.evidence,
    )
