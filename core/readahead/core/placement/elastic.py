"""Elastic roles: a prompt is computed where its first token is likely to come first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.cluster import Role, WorkerView
from readahead.core.placement.least_loaded import Placement
from readahead.core.request import Leg, WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A worker as one prompt sees it, all times foreseen."""

    worker: WorkerView
    leg: Leg
    """What it would be given: PREFILL, to be handed over, or WHOLE."""
    has_room: bool
    """For this leg, now. The prompt can wait in the router for a worker that will have."""
    queue_s: float
    """Until the prompts that it has are computed."""
    length_s: float
    """That this one then takes."""
    handover_s: float = 0.0
    """From its end to the first token elsewhere."""
    chunk_s: float = 0.0
    """The longest iteration that it would bring to those who read there."""
    slack_s: float = math.inf
    """What the poorest of them has left to read; inf where there is none."""

    @property
    def is_open(self) -> bool:
        """Nobody there would run out of text over it."""
        return self.slack_s >= self.chunk_s

    @property
    def first_token_s(self) -> float:
        """Seconds to the first token. Where somebody is short of text the prompt has to wait, at
        least until he has enough again."""
        waits_s = max(0.0, self.chunk_s - self.slack_s)
        return self.queue_s + waits_s + self.length_s + self.handover_s


def choose(sites: Sequence[Site]) -> Site | None:
    """Where a prompt goes; None: it waits in the router for the worker that serves it first.

    The soonest first token wins, and of equals the worker whose KV memory is committed least. So
    a decode worker with a reader who is short of text gets a prompt only if every prefill worker
    would take longer, the time included for which the prompt has to make way for him.

    Args:
        sites: in an order that does not depend on history.
    """
    best = min(sites, key=_rank, default=None)
    return best if best is not None and best.has_room else None


def placed(site: Site, sites: Sequence[Site]) -> Placement:
    """The choice, for Explain."""
    costs: dict[WorkerId, float] = {}
    for each in sorted(sites, key=_rank, reverse=True):
        costs[each.worker.description.worker_id] = each.first_token_s
    about = site.worker.description
    how = "to be handed over" if site.leg is Leg.PREFILL else "with its answer"
    kind = "" if about.role is Role.DECODE or site.leg is Leg.PREFILL else ", which is kept"
    return Placement(
        worker_id=about.worker_id,
        reason=f"first token soonest of {len(costs)}, in {site.first_token_s:.3f} s, {how}{kind}",
        costs=costs,
    )


def _rank(site: Site) -> tuple[float, float]:
    about = site.worker.description
    return site.first_token_s, site.worker.committed_tokens / (about.kv_blocks * about.block_tokens)
