"""The SLOs of the six scenarios, and of the same on large models.

Ref: [SLOs-Serve] scenario table, as in the author's code.
"""

from __future__ import annotations

from readahead.workload.slo import SloClass


def _slo(name: str, slowdown: float, tpot_s: float, think_s: float | None = None) -> SloClass:
    return SloClass(name=name, ttft_slowdown=slowdown, tpot_s=tpot_s, think_tpot_s=think_s)


SLO_CLASSES = {
    slo.name: slo
    for slo in (
        _slo("chatbot", 5.0, 0.1),
        _slo("chatbot-large", 5.0, 0.2),
        _slo("coder", 5.0, 0.05),
        _slo("coder-large", 5.0, 0.1),
        _slo("summarization", 3.0, 0.1),
        _slo("summarization-large", 3.0, 0.2),
        _slo("reasoning", 3.0, 0.1, think_s=0.05),
        _slo("reasoning-large", 3.0, 0.2, think_s=0.1),
        _slo("tool-loop", 3.0, 0.05),
        _slo("tool-loop-large", 3.0, 0.1),
        _slo("tool-answer", 3.0, 0.1),
        _slo("tool-answer-large", 3.0, 0.2),
        _slo("loose", 5.0, 0.05),  # of an ablation, on small models alone
    )
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
