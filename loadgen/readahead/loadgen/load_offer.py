"""What a run offers: sessions with their texts, from whichever kind of workload was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.loadgen.load_plain import PlainSpec, plain_sessions
from readahead.loadgen.session_run import Texts
from readahead.workload.arrivals import ClosedLoop
from readahead.workload.arrivals_kinds import at_rate as arrivals_at_rate
from readahead.workload.arrivals_trace import TraceArrivals
from readahead.workload.plan import plan as plan_sessions
from readahead.workload.prompts import (
    Prompts,
    TextPrompts,
    TokenIdPrompts,
    WordPrompts,
    load_tokenizer,
    plain_token_ids,
)
from readahead.workload.reader import Reader
from readahead.workload.session import Session
from readahead.workload.spec import WorkloadSpec as SessionSpec

OfferSpec = PlainSpec | SessionSpec
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
    if spec.arrivals is None:
        raise ValueError("each part of the workload has arrivals of its own: no one rate to set")
    arrivals = arrivals_at_rate(spec.arrivals, rate_req_s)
    if isinstance(spec, SessionSpec):
        return replace(spec, arrivals=arrivals)
    assert not isinstance(arrivals, TraceArrivals), "such a spec holds none"
    return replace(spec, arrivals=arrivals)


def with_seed(spec: OfferSpec, seed: int) -> OfferSpec:
    """The same kind of workload, from another seed."""
    return replace(spec, seed=seed)


def prompts_for(target: Target, *, seed: int) -> Prompts:
    """Makes prompts in the form that the target takes.

    Raises:
        OSError: the folder has no tokenizer.
        ValueError: it cannot be read.
    """
    if target.model_path is None:
        return WordPrompts(seed=seed)
    try:
        tokenizer = load_tokenizer(target.model_path)
    except OSError as error:
        file = error.filename or target.model_path
        raise OSError(f"no tokenizer can be read: {file}: {error.strerror}") from error
    if target.takes_ids:
        return TokenIdPrompts(plain_token_ids(tokenizer), seed=seed)
    return TextPrompts(tokenizer, seed=seed)


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
        texts=prompts_for(target, seed=spec.seed).segment,
        rate_req_s=None if is_closed else rate,
        closed_users=workload.concurrency,
        duration_s=spec.limits.duration_s if is_closed else None,
    )


def _plain_offer(spec: PlainSpec, target: Target, *, pace_tok_s: float | None) -> Offer:
    reader = Reader(
        pace_tok_s=DEFAULT_PACE_TOK_S if pace_tok_s is None else pace_tok_s,
        tells_pace=pace_tok_s is not None,
    )
    sessions = plain_sessions(spec, reader)
    prompts = prompts_for(target, seed=spec.seed)
    closed = spec.arrivals if isinstance(spec.arrivals, ClosedLoop) else None
    last_s = sessions[-1].arrival_s
    rate = spec.rate_req_s or (len(sessions) / last_s if last_s else None)
    return Offer(
        sessions=sessions,
        texts=lambda segment: prompts.prompt([segment]),
        rate_req_s=None if closed else rate,
        closed_users=closed.concurrency if closed else None,
        duration_s=spec.duration_s if closed else None,
    )
