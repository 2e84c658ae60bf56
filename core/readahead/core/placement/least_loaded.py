"""Placement by load: the candidate whose KV memory is committed least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readahead.core.cluster import WorkerView
from readahead.core.request import RequestView, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A chosen worker and why."""

    worker_id: WorkerId
    reason: str
    """One sentence for the log, the trace and Explain."""
    costs: Mapping[WorkerId, float]
    """By candidate; smaller is better."""


def place(request: RequestView, candidates: Sequence[WorkerView]) -> Placement:
    """Returns the candidate with the smallest share of KV memory committed, this request included.

    Committed tokens are the router's own count, so a load report that is a step old cannot send
    a burst to one worker. Among equals the one with fewer legs wins, then the first.

    Args:
        request: what is to be placed.
        candidates: workers with room; at least one.
    """
    assert candidates
    tokens = request.prompt_tokens + request.output_tokens_max
    costs = {view.description.worker_id: _cost(view, tokens) for view in candidates}
    best = min(candidates, key=lambda view: (costs[view.description.worker_id], view.legs))
    worker_id = best.description.worker_id
    share = costs[worker_id]
    return Placement(
        worker_id=worker_id,
        reason=f"least committed of {len(candidates)}: {share:.0%} of its KV memory",
        costs=costs,
    )


def _cost(view: WorkerView, tokens: int) -> float:
    about = view.description
    return (view.committed_tokens + tokens) / max(1, about.kv_blocks * about.block_tokens)
