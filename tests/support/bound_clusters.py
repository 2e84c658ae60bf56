"""Small clusters and open-loop workloads that a bound is made for, from a seed."""

from __future__ import annotations

import random
from dataclasses import replace

from small_clusters import PATIENT, small_sessions, small_spec

from readahead.core.config import AdmissionConfig, CoreConfig
from readahead.core.planning.policies.registry import make_policy
from readahead.core.reading.curves import EndToEnd, Slo, TtftTbt, TtftTpot
from readahead.sim.cluster import ClusterSpec
from readahead.workload.session import Session
from readahead.workload.slo import SloClass

RUSH_S = 0.2
"""Within which all arrive, where they overload a cluster."""


def bounded_spec(draw: random.Random, policy: str) -> ClusterSpec:
    """Any small cluster whose iteration times are no dice; some reject, some keep all."""
    spec = small_spec(draw)
    worker = replace(spec.decode_worker, noise_sigma=0.0)
    core = draw.choice((PATIENT, CoreConfig(admission=AdmissionConfig(queue_requests_max=3))))
    return replace(
        spec,
        decode_worker=worker,
        prefill=draw.choice((0, 0, 1)),
        decode=draw.choice((1, 1, 2)),
        policy=lambda _: make_policy(policy),
        core=replace(spec.core, admission=core.admission),
    )


def lone_turns(draw: random.Random, count: int, *, is_rush: bool) -> list[Session]:
    """Sessions of one turn, some of which think, or have no reader, or a promise."""
    promise = SloClass(name="test", ttft_slowdown=3.0, tpot_s=0.02, think_tpot_s=0.05)
    found = []
    for session in small_sessions(draw, count):
        turn = replace(
            session.turns[0],
            thinking_tokens=min(draw.choice((0, 0, 7)), session.turns[0].output_tokens),
            has_reader=draw.random() < 0.9,
            slo=draw.choice((None, None, promise)),
        )
        at_s = draw.random() * RUSH_S if is_rush else session.arrival_s
        reader = replace(session.reader, pace_tok_s=draw.choice((20.0, 80.0)))
        found.append(replace(session, turns=(turn,), arrival_s=at_s, reader=reader))
    return sorted(found, key=lambda session: session.arrival_s)


def any_promise(draw: random.Random) -> Slo | None:
    """What those are held to that were promised nothing; None: their reader's pace."""
    return draw.choice(
        (
            None,
            TtftTbt(ttft_s=0.2, tbt_s=0.02),
            TtftTpot(ttft_s=0.1, tpot_s=0.03),
            EndToEnd(e2e_s=0.8),
        )
    )
