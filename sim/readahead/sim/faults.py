"""When workers fail, and when they are back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from readahead.core.request import WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A worker is lost at once with all that it holds, and is back as a new incarnation."""

    worker_id: WorkerId
    at_s: float
    down_s: float

    def __post_init__(self) -> None:
        if self.at_s < 0 or self.down_s <= 0:
            raise ValueError(
                f"a fault needs at_s >= 0 and down_s > 0, got {self.at_s} and {self.down_s}"
            )


def fault_plan(
    worker_ids: Sequence[WorkerId],
    *,
    seed: int,
    until_s: float,
    mean_up_s: float,
    mean_down_s: float,
) -> tuple[Fault, ...]:
    """Each worker fails after exponential times up, and is gone for exponential times."""
    faults: list[Fault] = []
    for worker_id in worker_ids:
        draw = random.Random(f"faults/{seed}/{worker_id}")
        at_s = draw.expovariate(1 / mean_up_s)
        while at_s < until_s:
            down_s = max(1e-3, draw.expovariate(1 / mean_down_s))
            faults.append(Fault(worker_id=worker_id, at_s=at_s, down_s=down_s))
            at_s += down_s + draw.expovariate(1 / mean_up_s)
    return tuple(sorted(faults, key=lambda fault: (fault.at_s, fault.worker_id)))
