"""What users got to read, less what they waited, per second."""

from __future__ import annotations

import math
from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric

METRIC = Metric(
    name="smooth_goodput_tok_s",
    unit="tokens/s",
    formula=(
        "Σ_r (n_r - alpha f(l_r)) / T over all requests committed in T that somebody reads; "
        "n_r are the tokens that are read, l_r is `user_idle_s`"
    ),
    source="[SmoothGoodput] Eq. 10 and 11",
    undefined="the run has no duration",
)


def smooth_goodput_tok_s(benefits: Iterable[float], *, duration_s: float) -> float | None:
    """The benefits of all requests of a run, per second of it."""
    return math.fsum(benefits) / duration_s if duration_s > 0 else None
