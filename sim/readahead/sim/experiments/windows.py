"""Scores a window in the middle of a run: its beginning and its tail count for nothing.

Slack can be borrowed: work that slides past the end of a run flatters it. So what is counted is
what was gained within the window: with B(t) the benefit of all requests at time t, tokens delivered
by then less the penalties of what their readers had waited by then, smooth goodput over [a, b) is
(B(b) - B(a)) / (b - a). Sums over neighbouring windows add up to the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from readahead.core.reading.benefit import DEFAULT_SHAPE, Form
from readahead.core.reading.curves import EPSILON_S
from readahead.core.reading.score import Ruler
from readahead.core.reading.timeline import Outcome
from readahead.ruler.columns import Columns, columns, gaps_s, penalties
from readahead.ruler.run import OUTCOMES, Floats, Run

CANCELLED = OUTCOMES.index(Outcome.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Seconds of a run. Requests that arrive from `start_s` to `last_s` are those whose latencies
    count: the later ones had too little time to show."""

    start_s: float
    last_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.start_s < self.last_s <= self.end_s:
            raise ValueError(f"expected 0 <= start_s < last_s <= end_s, got {self}")

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


def cut(run: Run, at_s: float) -> Run:
    """The run as its log stood at that time; what was under way is cancelled there."""
    arrived = run.where(run.arrivals_s < at_s)
    kept = arrived.times_s <= at_s
    counted = np.concatenate([[0], np.cumsum(kept)])
    is_open = np.where(np.isnan(arrived.ended_s), np.inf, arrived.ended_s) > at_s
    return replace(
        arrived,
        times_s=arrived.times_s[kept],
        offsets=counted[arrived.offsets],
        outcomes=np.where(is_open, CANCELLED, arrived.outcomes).astype(np.int8),
        ended_s=np.where(is_open, at_s, arrived.ended_s),
        slos={},
        made_times_s={},
    )


def gained(
    run: Run, window: Window, *, paces_tok_s: tuple[float, ...] = (), offset_s: float = 0.0
) -> dict[str, float]:
    """What the window added, per second: tokens, and penalties by form, literal and censored.

    Without paces each reader has his own; with some, everybody has each in turn, and names end in
    `_v3` and the like.
    """
    at_end, at_start = cut(run, window.end_s), cut(run, window.start_s)
    tokens = len(at_end.times_s) - len(at_start.times_s)
    found = {"throughput_tok_s": tokens / window.duration_s}
    for pace_tok_s in paces_tok_s or (None,):
        name = "" if pace_tok_s is None else f"_v{pace_tok_s:g}"
        later = _penalties(at_end, window.end_s, pace_tok_s, offset_s)
        before = _penalties(at_start, window.start_s, pace_tok_s, offset_s)
        for key, value in later.items():
            found[key + name] = (value - before[key]) / window.duration_s
    return found


def _penalties(
    run: Run, until_s: float, pace_tok_s: float | None, offset_s: float
) -> Mapping[str, float]:
    if pace_tok_s is not None:
        run = replace(run, paces_tok_s=np.full(run.requests, pace_tok_s))
    each = columns(run, Ruler(offset_s=offset_s), observed_until_s=until_s)
    found = {}
    for form in Form:
        for kind, idle_s in (("literal", each.idle_s), ("censored", each.idle_censored_s)):
            lost = penalties(
                form,
                idle_s,
                tokens=each.read_tokens.astype(np.float64),
                paces_tok_s=each.paces_tok_s,
                shape=DEFAULT_SHAPE,
            )
            found[f"{form.value.lower()}_{kind}"] = float(lost.sum(where=each.has_reader))
    return found


def latencies(run: Run, window: Window, *, patience_s: Floats) -> dict[str, float | None]:
    """What users of the window saw: idle times, TTFT, TBT, and shares that were served well.

    `patience_s` is what each request of the run may take to its first token; the reading SLO is
    that nobody ever waits longer than that, the classical ones add 1 / v between tokens. Who is not
    through at the window's end is judged by what he saw until then.
    """
    chosen = (run.arrivals_s >= window.start_s) & (run.arrivals_s < window.last_s)
    seen = cut(run, window.end_s).where(chosen[run.arrivals_s < window.end_s])
    allowed_s = patience_s[chosen]
    each = columns(seen, Ruler(), observed_until_s=window.end_s)
    reads = each.idle_censored_s <= allowed_s + EPSILON_S
    largest_s = _largest_gaps_s(seen)
    by_first = np.nan_to_num(each.ttft_s, nan=np.inf) <= allowed_s + EPSILON_S
    slack_s = 1 / each.paces_tok_s
    tbt_met = by_first & (largest_s <= slack_s + EPSILON_S)
    tpot_met = by_first & ~(each.tpot_s > slack_s + EPSILON_S)
    # Who was ended before the window was is not served well, however short he waited.
    unbroken = seen.ended_normally | (seen.ended_s >= window.end_s)
    span_s = window.last_s - window.start_s
    gaps = gaps_s(seen)
    found: dict[str, float | None] = {
        "requests": seen.requests,
        "idle_mean_s": _mean(each.idle_censored_s),
        "idle_p99_s": _percentile(each.idle_censored_s, 99),
        "stalls_mean_s": _mean(_stalled_s(seen, each)),
        "ttft_mean_s": _mean(each.ttft_s),
        "ttft_p99_s": _percentile(each.ttft_s, 99),
        "tbt_mean_s": _mean(gaps),
        "tbt_p99_s": _percentile(gaps, 99),
        "tbt_max_p50_s": _percentile(largest_s[seen.tokens > 1], 50),
        "tbt_max_p99_s": _percentile(largest_s[seen.tokens > 1], 99),
        "tpot_p99_s": _percentile(each.tpot_s, 99),
        "cut_off_share": 1 - float(unbroken.mean()) if seen.requests else None,
    }
    for name, met in (("reading", reads), ("tbt", tbt_met), ("tpot", tpot_met)):
        met = met & unbroken
        found[f"attained_{name}"] = float(met.mean()) if seen.requests else None
        found[f"goodput_{name}_tok_s"] = float(seen.tokens[met].sum()) / span_s
        found[f"goodput_{name}_req_s"] = float(met.sum()) / span_s
    return found


def _stalled_s(run: Run, each: Columns) -> Floats:
    """Idle time after the first token: what waiting for it does not explain."""
    first_s = np.maximum(0.0, run.firsts_s - run.arrivals_s - 1 / each.paces_tok_s)
    stalled: Floats = each.idle_s - first_s
    return stalled


def _largest_gaps_s(run: Run) -> Floats:
    largest = np.zeros(run.requests)
    if len(run.times_s) > 1:
        gaps = np.diff(run.times_s, prepend=run.times_s[0])
        starts = run.offsets[:-1][run.tokens > 0]
        gaps[starts] = 0.0
        largest[run.tokens > 0] = np.maximum.reduceat(gaps, starts)
    return largest


def _mean(values: Floats) -> float | None:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else None


def _percentile(values: Floats, at: float) -> float | None:
    kept = values[~np.isnan(values)]
    return float(np.percentile(kept, at)) if len(kept) else None
