"""The two tricks at work on a toy server, and what each number says of them. All is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from readahead.core.reading.benefit import Form
from readahead.core.reading.curves import Curve, ReadingCurve, TtftTbt
from readahead.core.reading.score import Ruler, Score, score
from readahead.core.reading.timeline import Timeline, Window, window
from readahead.core.reading.tricks import TricksReport, find_tricks
from readahead.core.reading.tricks_policies import delay_output
from readahead.core.reading.tricks_queue import ToyWorkload, simulate

DELAY_SLO = TtftTbt(ttft_s=2.0, tbt_s=0.1)
DELAY_RATE_REQ_S = 1.5
DELAY_REQUESTS = 240
"""Below saturation, with prompts long enough to stall everyone's output for a moment."""
DELAY_PROMPT_TOKENS = 1500

DROP_SLO = ReadingCurve(pace_tok_s=10.0, offset_s=2.0)
"""The first token within 2 s, then 10 a second, none later than that: twice a reader's pace."""
DROP_REQUESTS = 500
DROP_RATES_REQ_S = (1.0, 3.0, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0, 10.0, 12.0)
DROP_SEEDS = 4
"""Runs that each point of the sweep is the mean of: one alone may turn out either way."""
DROP_RATE_REQ_S = 7.0
"""Of the table: past saturation, which lies at about 4.5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One run, as every number and the search for tricks see it."""

    timelines: Sequence[Timeline]
    by_f1: Score
    by_f2: Score
    """Both have all the classical numbers; their smooth goodput differs."""
    report: TricksReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The same requests, served honestly and with a trick."""

    honest: Seen
    trick: Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One rate of the sweep, tokens/s, mean of several seeds. Smooth goodput is F2, censored."""

    rate_req_s: float
    honest_goodput: float
    honest_smooth: float
    trick_goodput: float
    trick_smooth: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """Both tricks."""

    seed: int
    delay: Pair
    abandonment: Pair
    loads: Sequence[Load]


def demonstrate(seed: int = 0) -> Demonstration:
    """Runs everything; takes some ten seconds. The same seed gives the same numbers."""
    return Demonstration(
        seed=seed,
        delay=delay_pair(seed),
        abandonment=abandonment_pair(DROP_RATE_REQ_S, seed),
        loads=[_load(rate, seed) for rate in DROP_RATES_REQ_S],
    )


def delay_pair(seed: int = 0) -> Pair:
    """A bursty run, and the same one with its output delayed; both over the longer one's window."""
    workload = ToyWorkload(
        rate_req_s=DELAY_RATE_REQ_S,
        requests=DELAY_REQUESTS,
        prompt_tokens_median=DELAY_PROMPT_TOKENS,
        seed=seed,
    )
    honest = [replace(one, slo=DELAY_SLO) for one in simulate(workload, slo=DROP_SLO)]
    delayed = [delay_output(one, tbt_s=DELAY_SLO.tbt_s) for one in honest]
    observed = window(delayed)
    return Pair(
        honest=_seen(honest, DELAY_SLO, observed), trick=_seen(delayed, DELAY_SLO, observed)
    )


def abandonment_pair(rate_req_s: float, seed: int = 0) -> Pair:
    """The same arrivals, with and without ending what has missed; each over its own window."""
    return Pair(
        honest=_seen(_dropping(rate_req_s, seed, abandons=False), DROP_SLO),
        trick=_seen(_dropping(rate_req_s, seed, abandons=True), DROP_SLO),
    )


def _dropping(rate_req_s: float, seed: int, *, abandons: bool) -> list[Timeline]:
    workload = ToyWorkload(rate_req_s=rate_req_s, requests=DROP_REQUESTS, seed=seed)
    return simulate(workload, slo=DROP_SLO, abandons=abandons)


def _seen(timelines: Sequence[Timeline], slo: Curve, observed: Window | None = None) -> Seen:
    return Seen(
        timelines=timelines,
        by_f1=score(timelines, Ruler(form=Form.F1), observed=observed),
        by_f2=score(timelines, Ruler(form=Form.F2), observed=observed),
        report=find_tricks(timelines, slo=slo),
    )


def _load(rate_req_s: float, seed: int) -> Load:
    honest_goodput, honest_smooth = _means(rate_req_s, seed, abandons=False)
    trick_goodput, trick_smooth = _means(rate_req_s, seed, abandons=True)
    return Load(
        rate_req_s=rate_req_s,
        honest_goodput=honest_goodput,
        honest_smooth=honest_smooth,
        trick_goodput=trick_goodput,
        trick_smooth=trick_smooth,
    )


def _means(rate_req_s: float, seed: int, *, abandons: bool) -> tuple[float, float]:
    """Goodput and smooth goodput."""
    ruler = Ruler(form=Form.F2)
    scores = [
        score(_dropping(rate_req_s, seed + more, abandons=abandons), ruler)
        for more in range(DROP_SEEDS)
    ]
    goodput = fmean(one.goodput_tok_s or 0.0 for one in scores)
    return goodput, fmean(one.smooth_goodput_censored_tok_s or 0.0 for one in scores)
