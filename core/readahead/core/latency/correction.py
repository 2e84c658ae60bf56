"""What measured iterations say against the model, while it serves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from readahead.core.config import require
from readahead.core.latency.iteration import LatencyModel


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineCorrection:
    """How many times longer than predicted one worker's iterations take. A value.

    An exponential mean of actual / predicted. Each ratio is clipped first, so that one pause of a
    second does not count as an engine a hundred times slower. The bounds lie far from 1: noise
    well inside them does not bias the mean.

    Ref: [SLOs-Serve] online slack of the authors' later code, an exponential mean of
         actual - predicted, clipped.
    Differs: a factor instead of seconds, since a slower clock or a busy neighbour slows long
         iterations more; may be below 1, since a model too slow wastes capacity.
    """

    factor: float = 1.0
    half_life_iterations: float = 32.0
    """After so many iterations an observation counts half."""
    ratio_min: float = 0.2
    ratio_max: float = 5.0

    def __post_init__(self) -> None:
        require("half_life_iterations", self.half_life_iterations, least=1)
        require("ratio_min", self.ratio_min, least=1e-3, most=1)
        require("ratio_max", self.ratio_max, least=1, most=1e3)
        require("factor", self.factor, least=self.ratio_min, most=self.ratio_max)

    def after(
        self, *, actual_s: float, predicted_s: float, iterations: int = 1
    ) -> OnlineCorrection:
        """The correction once so many iterations took `actual_s` together.

        `predicted_s` is the model's own, not the corrected one. Nothing predicted, nothing learnt.

        Raises:
            ValueError: a time is negative or not finite.
        """
        require("actual_s", actual_s, least=0)
        require("predicted_s", predicted_s, least=0)
        if predicted_s == 0 or iterations < 1:
            return self
        ratio = min(self.ratio_max, max(self.ratio_min, actual_s / predicted_s))
        learnt = -math.expm1(-math.log(2) * iterations / self.half_life_iterations)
        return replace(self, factor=self.factor + learnt * (ratio - self.factor))

    def corrected(self, model: LatencyModel) -> LatencyModel:
        """The model with its times multiplied by the factor."""
        return replace(model, time_scale=model.time_scale * self.factor)
