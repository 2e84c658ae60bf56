"""All metrics of one run, from its timelines.

In plain Python, for some thousands of requests at a time: live views and tests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.reading import benefit as benefits
from readahead.core.reading.curves import EndToEnd, Origin, ReadingCurve, Slo
from readahead.core.reading.idle import idle_s
from readahead.core.reading.metrics.andes_qoe import andes_qoe
from readahead.core.reading.metrics.e2e_s import e2e_s
from readahead.core.reading.metrics.effective_throughput_tok_s import (
    effective_throughput_tok_s,
    effective_tokens,
)
from readahead.core.reading.metrics.fluidity_index import fluidity_index
from readahead.core.reading.metrics.goodput_req_s import goodput_req_s
from readahead.core.reading.metrics.goodput_tok_s import goodput_tok_s
from readahead.core.reading.metrics.slo_attainment import is_attained, slo_attainment
from readahead.core.reading.metrics.smooth_goodput_censored_tok_s import (
    smooth_goodput_censored_tok_s,
)
from readahead.core.reading.metrics.smooth_goodput_tok_s import smooth_goodput_tok_s
from readahead.core.reading.metrics.tbt_s import tbt_s
from readahead.core.reading.metrics.throughput_tok_s import throughput_tok_s
from readahead.core.reading.metrics.tpot_s import tpot_s
from readahead.core.reading.metrics.ttft_s import ttft_s
from readahead.core.reading.percentiles import Summary, summary
from readahead.core.reading.timeline import Outcome, Timeline, Window, window

NO_BOUND = EndToEnd(e2e_s=math.inf)
"""What a request was promised that nobody reads and that was promised nothing: an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruler:
    """What the metrics depend on; shown beside each number."""

    form: benefits.Form = benefits.DEFAULT_FORM
    alpha: float = benefits.DEFAULT_ALPHA
    pace_tok_s: float = benefits.DEFAULT_PACE_TOK_S
    """For requests that do not say how fast their user reads."""
    offset_s: float = 0.0
    origin: Origin = Origin.COMMIT
    shape: benefits.Shape = benefits.DEFAULT_SHAPE
    slo: Slo | None = None
    """For requests that do not say what they were promised. None: the reading curve."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and >= 0, is {self.alpha}")
        if not 0 < self.pace_tok_s < math.inf:
            raise ValueError(f"pace_tok_s must be finite and > 0, is {self.pace_tok_s}")

    def curve(self, timeline: Timeline) -> ReadingCurve:
        """The due times of this request's reader."""
        pace_tok_s = self.pace_tok_s if timeline.pace_tok_s is None else timeline.pace_tok_s
        return ReadingCurve(pace_tok_s=pace_tok_s, offset_s=self.offset_s, origin=self.origin)

    def promise(self, timeline: Timeline) -> Slo:
        """What this request is held to."""
        unsaid = self.curve(timeline) if timeline.has_reader else NO_BOUND
        return timeline.slo or self.slo or unsaid

    def benefit(self, timeline: Timeline, idle_s: float) -> float:
        """What this request's user got out of it, given his idle time; 0 without a user."""
        if not timeline.has_reader:
            return 0.0
        return benefits.benefit(
            self.form,
            idle_s,
            tokens=len(timeline.read_times_s),
            pace_tok_s=self.curve(timeline).pace_tok_s,
            alpha=self.alpha,
            shape=self.shape,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestScore:
    """The metrics of one request. Where nobody reads it, nobody idles, and its benefit is 0."""

    request_id: str
    tokens: int
    idle_s: float
    idle_censored_s: float
    benefit: float
    benefit_censored: float
    is_attained: bool
    has_reader: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The metrics of one run. None: undefined, see each metric."""

    requests: int
    outcomes: dict[Outcome, int]
    tokens: int
    duration_s: float
    smooth_goodput_tok_s: float | None
    smooth_goodput_censored_tok_s: float | None
    user_idle_s: Summary | None
    user_idle_censored_s: Summary | None
    slo_attainment: float | None
    goodput_req_s: float | None
    goodput_tok_s: float | None
    throughput_tok_s: float | None
    effective_throughput_tok_s: float | None
    ttft_s: Summary | None
    tbt_s: Summary | None
    tpot_s: Summary | None
    e2e_s: Summary | None
    andes_qoe: Summary | None
    fluidity_index: Summary | None


def request_score(
    timeline: Timeline, ruler: Ruler, *, observed_until_s: float | None = None
) -> RequestScore:
    """The metrics of one request; the end of observation matters where it did not end normally."""
    curve = ruler.curve(timeline)
    literal_s = idle_s(timeline, curve)
    censored_s = idle_s(timeline, curve, censored=True, observed_until_s=observed_until_s)
    return RequestScore(
        request_id=timeline.request_id,
        tokens=timeline.tokens,
        idle_s=literal_s,
        idle_censored_s=censored_s,
        benefit=ruler.benefit(timeline, literal_s),
        benefit_censored=ruler.benefit(timeline, censored_s),
        is_attained=is_attained(timeline, ruler.promise(timeline)),
        has_reader=timeline.has_reader,
    )


def score(timelines: Sequence[Timeline], ruler: Ruler, *, observed: Window | None = None) -> Score:
    """The metrics of a run, by default observed from its first arrival to its last token or end."""
    observed = observed or window(timelines) or Window(start_s=0.0, end_s=0.0)
    duration_s = observed.duration_s
    each = [request_score(t, ruler, observed_until_s=observed.end_s) for t in timelines]
    attained = [one.is_attained for one in each]
    return Score(
        requests=len(each),
        outcomes=dict(Counter(t.outcome for t in timelines)),
        tokens=sum(one.tokens for one in each),
        duration_s=duration_s,
        smooth_goodput_tok_s=smooth_goodput_tok_s(
            (one.benefit for one in each), duration_s=duration_s
        ),
        smooth_goodput_censored_tok_s=smooth_goodput_censored_tok_s(
            (one.benefit_censored for one in each), duration_s=duration_s
        ),
        user_idle_s=summary(one.idle_s for one in each if one.has_reader),
        user_idle_censored_s=summary(one.idle_censored_s for one in each if one.has_reader),
        slo_attainment=slo_attainment(attained),
        goodput_req_s=goodput_req_s(attained, duration_s=duration_s),
        goodput_tok_s=goodput_tok_s(
            (one.tokens for one in each if one.is_attained), duration_s=duration_s
        ),
        throughput_tok_s=throughput_tok_s((one.tokens for one in each), duration_s=duration_s),
        effective_throughput_tok_s=effective_throughput_tok_s(
            (effective_tokens(t, ruler.curve(t)) for t in timelines), duration_s=duration_s
        ),
        ttft_s=summary(s for t in timelines if (s := ttft_s(t)) is not None),
        tbt_s=summary(gap for t in timelines for gap in tbt_s(t)),
        tpot_s=summary(s for t in timelines if (s := tpot_s(t)) is not None),
        e2e_s=summary(s for t in timelines if (s := e2e_s(t)) is not None),
        andes_qoe=summary(andes_qoe(t) for t in timelines if t.has_reader),
        fluidity_index=summary(fluidity_index(t) for t in timelines),
    )
