"""Smooth goodput in which a user who was left hanging costs something."""

from __future__ import annotations

from collections.abc import Iterable

from readahead.core.reading.metrics.metric import Metric
from readahead.core.reading.metrics.smooth_goodput_tok_s import smooth_goodput_tok_s

METRIC = Metric(
    name="smooth_goodput_censored_tok_s",
    unit="tokens/s",
    formula=(
        "as `smooth_goodput_tok_s`, with `user_idle_censored_s` for l_r: "
        "stopping before the late token is no way out"
    ),
    source="our rule: the literal formula charges a stall only when the late token comes",
    undefined="the run has no duration",
)


def smooth_goodput_censored_tok_s(
    censored_benefits: Iterable[float], *, duration_s: float
) -> float | None:
    """The benefits of all requests of a run, from their censored idle time, per second of it."""
    return smooth_goodput_tok_s(censored_benefits, duration_s=duration_s)
