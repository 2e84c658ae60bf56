"""The numbers of a run, from its records. Exact: nothing is binned or sampled."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from readahead.loadgen.records import Outcome, Record
from readahead.loadgen.senders import Cause

LATENESS_SHARE_MAX = 0.01
"""Of the mean gap between arrivals. Sends later than that are no longer the process they claim
to be, and queueing delays measured under them are too small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Of a set of observations, each quantile one of them."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in numbers. None: nothing to take it from."""

    span_s: float
    """From the run's start to the last request's end."""
    outcomes: Counter[Outcome]
    dropped: int
    output_tokens: int
    requests_per_s: float
    """Finished ones."""
    tokens_per_s: float
    """All that were received."""
    ttft_from_arrival_s: Quantiles | None
    """First frame, less the intended send time. Requests with a first frame."""
    ttft_from_send_s: Quantiles | None
    """First frame, less the actual send time."""
    tpot_s: Quantiles | None
    """(last - first token) / (tokens - 1), finished requests of two tokens and more."""
    itl_s: Quantiles | None
    """Each gap between neighbouring tokens, pooled; 0 within a frame."""
    e2e_s: Quantiles | None
    """End, less the intended send time. Finished requests."""
    lateness_s: Quantiles | None
    """Actual less intended send time of what arrives in the open loop: a session's first turn."""
    counts_estimated: int
    """Requests whose tokens per frame are estimates."""
    invalid_because: tuple[str, ...]
    """Why the run measures something other than it says. Empty: it does not."""
    turn_lateness_s: Quantiles | None = None
    """The same of later turns, which follow the answers before them."""
    causes: dict[str, int] = field(default_factory=dict)
    """Of the requests that did not finish, and of those that their readers left."""
    target_lost_s: float | None = None
    """When the target was gone for good: from then on each request that ended failed for want of
    a connection. None: it was not."""


def quantile(ascending: Sequence[float], share: float) -> float:
    """The smallest observation that at least this share of all do not exceed (nearest rank)."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def quantiles(values: Sequence[float]) -> Quantiles | None:
    """None for no values."""
    if not values:
        return None
    ascending = sorted(values)
    return Quantiles(
        count=len(ascending),
        mean=math.fsum(ascending) / len(ascending),
        p50=quantile(ascending, 0.50),
        p90=quantile(ascending, 0.90),
        p99=quantile(ascending, 0.99),
    )


def summarise(
    records: Sequence[Record], *, rate_req_s: float | None, dropped: int, is_interrupted: bool
) -> Summary:
    """The numbers of a run that was meant to have this rate of arrivals; None: a closed loop,
    which has none to be late for."""
    begun = [record for record in records if record.frame_times_s]
    finished = [record for record in records if record.outcome is Outcome.FINISHED]
    span_s = max((record.ended_s for record in records), default=0.0)
    tokens = sum(sum(record.token_counts) for record in records)
    is_open = rate_req_s is not None
    lateness_s = quantiles([r.sent_s - r.arrival_s for r in records if is_open and _turn(r) == 0])
    return Summary(
        span_s=span_s,
        outcomes=Counter(record.outcome for record in records),
        dropped=dropped,
        output_tokens=tokens,
        requests_per_s=len(finished) / span_s if span_s else 0.0,
        tokens_per_s=tokens / span_s if span_s else 0.0,
        ttft_from_arrival_s=quantiles([r.frame_times_s[0] - r.arrival_s for r in begun]),
        ttft_from_send_s=quantiles([r.frame_times_s[0] - r.sent_s for r in begun]),
        tpot_s=quantiles([tpot_s for r in finished if (tpot_s := _tpot_s(r)) is not None]),
        itl_s=quantiles(list(itertools.chain.from_iterable(map(_gaps_s, begun)))),
        e2e_s=quantiles([r.ended_s - r.arrival_s for r in finished]),
        lateness_s=lateness_s,
        counts_estimated=sum(record.are_counts_estimated for record in records),
        invalid_because=tuple(
            _invalid_because(
                lateness_s, rate_req_s=rate_req_s, dropped=dropped, is_interrupted=is_interrupted
            )
        ),
        turn_lateness_s=quantiles([r.sent_s - r.arrival_s for r in records if _turn(r) > 0]),
        causes=dict(Counter(record.cause for record in records if record.cause is not None)),
        target_lost_s=_target_lost_s(records),
    )


def _turn(record: Record) -> int:
    return record.visit.turn if record.visit is not None else 0


def _target_lost_s(records: Sequence[Record]) -> float | None:
    """The first of the lost connections that the run ended with."""
    lost_s = None
    for record in sorted(records, key=lambda record: record.ended_s, reverse=True):
        if record.cause != Cause.CONNECTION:
            break
        lost_s = record.ended_s
    return lost_s


def _tpot_s(record: Record) -> float | None:
    times_s = record.token_times_s
    return (times_s[-1] - times_s[0]) / (len(times_s) - 1) if len(times_s) > 1 else None


def _gaps_s(record: Record) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(record.token_times_s)]


def _invalid_because(
    lateness_s: Quantiles | None, *, rate_req_s: float | None, dropped: int, is_interrupted: bool
) -> list[str]:
    reasons = []
    limit_s = math.inf if rate_req_s is None else LATENESS_SHARE_MAX / rate_req_s
    if lateness_s is not None and lateness_s.p99 > limit_s:
        reasons.append(
            f"sends were late: p99 {lateness_s.p99 * 1e3:.2f} ms, above 1 % of the mean gap "
            f"({limit_s * 1e3:.2f} ms)"
        )
    if dropped:
        reasons.append(f"{dropped} requests were dropped by the generator at --concurrency-max")
    if is_interrupted:
        reasons.append("the run was interrupted")
    return reasons
