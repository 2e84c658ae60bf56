"""Several scenarios in one workload, each session with the SLO of its own."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate

from readahead.workload.scenarios import Scenario, chatbot, coder, summarization
from readahead.workload.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedScenario:
    """Each session is of one of the parts, by weight."""

    parts: tuple[Scenario, ...]
    weights: tuple[float, ...]
    name: str = "mixed"

    def __post_init__(self) -> None:
        if not self.parts or len(self.parts) != len(self.weights):
            raise ValueError(
                f"{self.name} needs one weight for each part, got {len(self.weights)}"
                f" for {len(self.parts)}"
            )
        for part, weight in zip(self.parts, self.weights, strict=True):
            if not 0 < weight < math.inf:
                raise ValueError(f"weight of {part.name} must be finite and > 0, is {weight}")

    @property
    def label(self) -> str:
        """Name and parts."""
        return f"{self.name} of {' + '.join(part.label for part in self.parts)}"

    def make_session(
        self,
        *,
        session_id: str,
        arrival_s: float,
        tenant: str,
        user: str,
        rng: random.Random,
        lengths: tuple[int, int] | None = None,
    ) -> Session:
        """One session of one part, called such as `mixed/coder`."""
        levels = list(accumulate(self.weights))
        index = min(bisect_right(levels, rng.random() * levels[-1]), len(levels) - 1)
        part = self.parts[index]
        session = part.make_session(
            session_id=session_id,
            arrival_s=arrival_s,
            tenant=tenant,
            user=user,
            rng=rng,
            lengths=lengths,
        )
        return replace(session, scenario=f"{self.name}/{part.label}")


def mixed(*, large: bool = False) -> MixedScenario:
    """Chatbot, coder and summarization. The paper takes the union of their traces; equal weights
    are an assumption. Ref: [SLOs-Serve] scenario table."""
    parts = (chatbot(large=large), coder(large=large), summarization(large=large))
    return MixedScenario(parts=parts, weights=(1.0,) * len(parts))
