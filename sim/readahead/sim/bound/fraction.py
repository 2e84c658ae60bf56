"""A simulated run beside what no policy could exceed. Simulated: nothing here was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.reading.score import Ruler, Score
from readahead.sim.bound.attainment_bound import attained_bound
from readahead.sim.bound.benefit_bound import benefit_bound_tokens
from readahead.sim.bound.grid import Grid, graded_grid
from readahead.sim.bound.known import KnownRequest
from readahead.sim.bound.rates import rates
from readahead.sim.cluster import ClusterSpec

CELLS = 40
"""Of a grid that nobody chose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What no policy exceeds for certain requests on a certain cluster, under one ruler."""

    benefit_tokens: float
    attained: int
    requests: int

    def smooth_goodput_tok_s(self, duration_s: float) -> float:
        """The most smooth goodput of a run observed for so long. A policy chooses how long its run
        is, so that rates of two runs have two bounds; the benefit has one."""
        return self.benefit_tokens / duration_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fraction:
    """What one run reached of each bound. None: the bound is 0 or less."""

    benefit: float | None
    """Of smooth goodput too: the run's duration is below both."""
    attainment: float | None


def bounds(
    spec: ClusterSpec, requests: Sequence[KnownRequest], ruler: Ruler, *, grid: Grid | None = None
) -> Bounds:
    """Both bounds of a workload, over all policies and all runs in which no worker fails.

    Raises:
        ValueError: see `rates`; or a request came before the grid.
    """
    if not requests:
        return Bounds(benefit_tokens=0.0, attained=0, requests=0)
    grid = grid or graded_grid(requests, ruler, cells=CELLS)
    pool = rates(spec)
    return Bounds(
        benefit_tokens=benefit_bound_tokens(requests, pool, ruler, grid=grid),
        attained=attained_bound(requests, pool, ruler, grid=grid),
        requests=len(requests),
    )


def fraction(score: Score, most: Bounds) -> Fraction:
    """A run as a fraction of what no policy exceeds.

    Raises:
        ValueError: the run has other requests than the bounds.
    """
    if score.requests != most.requests:
        raise ValueError(f"the run has {score.requests} requests, the bounds {most.requests}")
    benefit_tokens = (score.smooth_goodput_tok_s or 0.0) * score.duration_s
    attained = (score.slo_attainment or 0.0) * score.requests
    return Fraction(
        benefit=benefit_tokens / most.benefit_tokens if most.benefit_tokens > 0 else None,
        attainment=attained / most.attained if most.attained else None,
    )
