"""Policies for tests that park: at random, by a timetable, or whenever `readahead` can."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from readahead.core.planning.policies.vllm_chunked import VllmChunked
from readahead.core.planning.policy import BatchPolicy, Choice, EngineView, Park
from readahead.core.planning.sequence import Sequence

PARKS_EARLY: Mapping[str, float] = {
    "park": True,
    "park_margin_s": 0.1,
    "park_dwell_s": 0.05,
    "park_share": 100.0,
    "park_load": 1000.0,
    "rich_s": 0.2,
}
"""Knobs with which `readahead` parks whenever it can."""


@dataclass(slots=True)
class WildParking:
    """Chooses as another does, and has anybody parked and back at random, copied or not."""

    rng: random.Random
    policy: BatchPolicy = field(default_factory=VllmChunked)
    name: str = "wild-parking"

    def choose(self, view: EngineView, now: float) -> Choice:
        """Parks about one in ten."""
        rng, choice = self.rng, self.policy.choose(view, now)
        park = [Park(s, rng.random() < 0.8) for s in view.running if rng.random() < 0.1]
        resume = [s for s in view.parked if rng.random() < 0.2]
        return replace(choice, park=park, resume=resume, holds_for=1)


@dataclass(slots=True)
class Timetable:
    """`vllm-chunked`, but those named are parked from one time to another."""

    away: Mapping[str, tuple[float, float]]
    """By session."""
    is_copied: bool = True
    policy: BatchPolicy = field(default_factory=VllmChunked)
    name: str = "timetable"

    def choose(self, view: EngineView, now: float) -> Choice:
        """Asks for it again as long as it is refused."""
        choice = self.policy.choose(view, now)
        park = [Park(s, self.is_copied) for s in view.running if self._is_away(s, now)]
        resume = [s for s in view.parked if not self._is_away(s, now)]
        return replace(choice, park=park, resume=resume, holds_for=1)

    def _is_away(self, sequence: Sequence, now: float) -> bool:
        start_s, end_s = self.away.get(sequence.request_id.split(".")[0], (0.0, 0.0))
        return start_s <= now < end_s
