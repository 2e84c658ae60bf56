"""What a run offers: sessions with their texts, from whichever kind of workload was asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.loadgen.prompts import (
    Prompts,
    TextPrompts,
    TokenIdPrompts,
    WordPrompts,
    load_tokenizer,
    plain_token_ids,
)
from readahead.loadgen.session_run import Texts
from readahead.loadgen.workload import PlannedRequest
from readahead.loadgen.workload import WorkloadSpec as PlainSpec
from readahead.loadgen.workload import plan as plan_plain
from readahead.workload import prompts as segment_prompts
from readahead.workload.arrivals import ClosedLoop, first_times_s
from readahead.workload.arrivals_kinds import Generated
from readahead.workload.arrivals_kinds import at_rate as arrivals_at_rate
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.plan import plan as plan_sessions
from readahead.workload.reader import Reader
from readahead.workload.session import Segment, Session, Turn
from readahead.workload.spec import WorkloadSpec as SessionSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalSpec:
    """Requests of given lengths by people who ask once, at other arrivals than Poisson's."""

    plain: PlainSpec
    """Its rate is not used."""
    arrivals: Generated | ClosedLoop

    @property
    def seed(self) -> int:
        """Of everything."""
        return self.plain.seed


OfferSpec = PlainSpec | ArrivalSpec | SessionSpec
"""A workload as asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What is sent, made before the run begins."""

    sessions: Sequence[Session]
    texts: Texts
    rate_req_s: float | None
    """Mean rate of sessions that was asked for; None: there is none, as in a closed loop."""
    closed_users: int | None = None
    """None: an open loop."""
    duration_s: float | None = None

    @property
    def requests(self) -> int:
        """Turns of all sessions."""
        return sum(len(session.turns) for session in self.sessions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What prompts depend on."""

    takes_ids: bool
    model_path: Path | None


def make_offer(spec: OfferSpec, target: Target, *, pace_tok_s: float | None) -> Offer:
    """The offer of one run.

    Raises:
        OSError: a file of the workload or the tokenizer cannot be read.
        ValueError: the workload is empty, or a file is not what it should be.
    """
    if isinstance(spec, SessionSpec):
        return _session_offer(spec, target, pace_tok_s=pace_tok_s)
    return _plain_offer(spec, target, pace_tok_s=pace_tok_s)


def at_rate(spec: OfferSpec, rate_req_s: float) -> OfferSpec:
    """The same workload at another rate.

    Raises:
        ValueError: it has no one rate.
    """
    if isinstance(spec, PlainSpec):
        return replace(spec, rate_req_s=rate_req_s)
    if isinstance(spec, ArrivalSpec):
        arrivals = arrivals_at_rate(spec.arrivals, rate_req_s)
        assert not isinstance(arrivals, TraceArrivals), "such a spec holds none"
        return replace(spec, arrivals=arrivals)
    if spec.arrivals is None:
        raise ValueError("each part of the workload has arrivals of its own: no one rate to set")
    return replace(spec, arrivals=arrivals_at_rate(spec.arrivals, rate_req_s))


def with_seed(spec: OfferSpec, seed: int) -> OfferSpec:
    """The same kind of workload, from another seed."""
    if isinstance(spec, ArrivalSpec):
        return replace(spec, plain=replace(spec.plain, seed=seed))
    return replace(spec, seed=seed)


def prompts_for(target: Target) -> Prompts:
    """Makes prompts in the form that the target takes.

    Raises:
        OSError: the folder has no tokenizer.
        ValueError: it cannot be read.
    """
    if target.model_path is None:
        return WordPrompts()
    tokenizer = load_tokenizer(target.model_path)
    if target.takes_ids:
        return TokenIdPrompts(plain_token_ids(tokenizer))
    return TextPrompts(tokenizer)


def _session_offer(spec: SessionSpec, target: Target, *, pace_tok_s: float | None) -> Offer:
    workload = plan_sessions(spec)
    sessions = list(workload)
    if pace_tok_s is not None:
        sessions = [
            replace(one, reader=replace(one.reader, pace_tok_s=pace_tok_s, tells_pace=True))
            for one in sessions
        ]
    rate = getattr(spec.arrivals, "rate_req_s", None) or workload.mean_rate_req_s or None
    is_closed = spec.is_closed_loop
    return Offer(
        sessions=sessions,
        texts=_segment_prompts(target, spec.seed).segment,
        rate_req_s=None if is_closed else rate,
        closed_users=workload.concurrency,
        duration_s=spec.limits.duration_s if is_closed else None,
    )


def _segment_prompts(target: Target, seed: int) -> segment_prompts.Prompts:
    if target.model_path is None:
        return segment_prompts.WordPrompts(seed=seed)
    tokenizer = segment_prompts.load_tokenizer(target.model_path)
    if target.takes_ids:
        return segment_prompts.TokenIdPrompts(segment_prompts.plain_token_ids(tokenizer), seed=seed)
    return segment_prompts.TextPrompts(tokenizer, seed=seed)


def _plain_offer(
    spec: PlainSpec | ArrivalSpec, target: Target, *, pace_tok_s: float | None
) -> Offer:
    planned = _planned(spec, prompts_for(target))
    if not planned:
        raise ValueError("no request arrives within the duration at this rate")
    reader = Reader(
        pace_tok_s=DEFAULT_PACE_TOK_S if pace_tok_s is None else pace_tok_s,
        tells_pace=pace_tok_s is not None,
    )
    made = {f"plain/{index}": one.prompt for index, one in enumerate(planned)}

    def texts(segment: Segment) -> str | Sequence[int]:
        return made[segment.key]

    plain = spec if isinstance(spec, PlainSpec) else spec.plain
    closed = spec.arrivals if isinstance(spec, ArrivalSpec) else None
    is_closed = isinstance(closed, ClosedLoop)
    return Offer(
        sessions=[_session(index, one, reader) for index, one in enumerate(planned)],
        texts=texts,
        rate_req_s=None if is_closed else _rate_req_s(spec, planned),
        closed_users=closed.concurrency if isinstance(closed, ClosedLoop) else None,
        duration_s=plain.duration_s if is_closed else None,
    )


def _planned(spec: PlainSpec | ArrivalSpec, prompts: Prompts) -> list[PlannedRequest]:
    if isinstance(spec, PlainSpec):
        return plan_plain(spec, prompts, run_id="plain")
    plain = spec.plain
    if isinstance(spec.arrivals, ClosedLoop):
        if plain.requests is None:
            raise ValueError("a closed loop needs a number of requests")
        times_s = [0.0] * plain.requests
    else:
        rng = random.Random(f"{plain.seed}/arrivals")
        endless = spec.arrivals.times_s(rng)
        times_s = list(first_times_s(endless, sessions=plain.requests, duration_s=plain.duration_s))
    if not times_s:
        return []
    bare = replace(plain, rate_req_s=1.0, requests=len(times_s), duration_s=None)
    planned = plan_plain(bare, prompts, run_id="plain")
    return [
        replace(one, arrival_s=arrival_s) for one, arrival_s in zip(planned, times_s, strict=True)
    ]


def _rate_req_s(spec: PlainSpec | ArrivalSpec, planned: Sequence[PlannedRequest]) -> float | None:
    """As asked for, or where the arrivals have no one rate, as they came out."""
    if isinstance(spec, PlainSpec):
        return spec.rate_req_s
    asked: float | None = getattr(spec.arrivals, "rate_req_s", None)
    last_s = planned[-1].arrival_s
    return asked or (len(planned) / last_s if last_s else None)


def _session(index: int, planned: PlannedRequest, reader: Reader) -> Session:
    """One request of somebody who asks once."""
    segment = Segment(f"plain/{index}", planned.prompt_tokens)
    return Session(
        session_id=f"plain-{index:06d}",
        arrival_s=planned.arrival_s,
        scenario="plain",
        tenant="default",
        user=f"user-{index:06d}",
        reader=reader,
        turns=(Turn(segments=(segment,), output_tokens=planned.output_tokens),),
    )
