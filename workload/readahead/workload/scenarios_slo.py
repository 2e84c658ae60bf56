"""The SLOs of the six scenarios, and of the same on large models.

Ref: [SLOs-Serve] scenario table, as in the author's code.
"""

from __future__ import annotations

from readahead.core.slo import PAPER_CLASSES
from readahead.workload.slo import SloClass

SLO_CLASSES = {
    each.name: SloClass(
        name=each.name,
        ttft_slowdown=each.ttft_slowdown,
        tpot_s=each.tpot_s,
        think_tpot_s=each.think_tpot_s or None,
    )
    for each in PAPER_CLASSES.values()
}
"""By name; `-large` is for models of 13 billion parameters or more."""


def slo_class(name: str, *, large: bool = False) -> SloClass:
    """The SLO of a scenario.

    Raises:
        ValueError: there is none; the message lists those there are.
    """
    full = f"{name}-large" if large else name
    if full not in SLO_CLASSES:
        raise ValueError(f"no SLO is called {full!r}; known: {', '.join(SLO_CLASSES)}")
    return SLO_CLASSES[full]
