"""What an engine reports is what a worker's /metrics say."""

from __future__ import annotations

from readahead.core.cluster import WorkerLoad
from readahead.services.engine.engine import EngineState, PlanReport
from readahead.services.worker import metrics


def test_parks_of_plans_are_told() -> None:
    """So many since the start, so many back, so many away now."""
    metrics.observe_state(
        EngineState(
            load=WorkerLoad(running=0, waiting=0, kv_blocks_free=1),
            handovers_held=0,
            transfers_total=0,
            transfer_bytes_total=0,
            plan=PlanReport(policy="readahead", parks=5, resumes=3, parked=2),
        )
    )
    gauges = (metrics.PARKS, metrics.RESUMES, metrics.PARKED)
    assert [gauge._value.get() for gauge in gauges] == [5, 3, 2]
