"""What an engine is made of, and what it did."""

from __future__ import annotations

import math
from dataclasses import dataclass

from readahead.core.cluster import WorkerDescription
from readahead.core.planning.policy import BatchPolicy, EngineLimits
from readahead.sim.links import LINKS, Link
from readahead.sim.stretch import EngineTimes


@dataclass(slots=True, kw_only=True)
class EngineCounts:
    """Sums over an engine's life."""

    busy_s: float = 0.0
    iterations: int = 0
    stretches: int = 0
    tokens_made: int = 0
    tokens_computed: int = 0
    prefix_tokens_hit: int = 0
    tokens_drafted: int = 0
    tokens_accepted: int = 0
    """Of those drafted."""
    legs: int = 0
    pulls: int = 0
    pulls_failed: int = 0
    adopted: int = 0
    """Legs that came from another engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What an engine is made of."""

    description: WorkerDescription
    limits: EngineLimits
    policy: BatchPolicy
    times: EngineTimes
    stretch_s_max: float = math.inf
    """Longest stretch: how old the router's knowledge of an engine can become."""
    has_prefix_cache: bool = False
    draft_tokens_max: int = 0
    """Longest draft; 0: it does not speculate."""
    host_blocks: int = 0
    """KV blocks that host memory holds; 0: nobody can be parked."""
    host_link: Link = LINKS["pcie4"]
    """Between device and host memory; all of this bandwidth in each direction."""
