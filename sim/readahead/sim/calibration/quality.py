"""How well a model predicts points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from readahead.core.latency.iteration import LatencyModel
from readahead.core.latency.profile import KindFit
from readahead.sim.calibration.fit import FitSettings, fit_model, predict_s, split
from readahead.sim.calibration.points import KINDS, Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model and how it did on points that it was not fitted to."""

    model: LatencyModel
    kinds: tuple[KindFit, ...]
    """One for each kind that was held out, and `all`."""
    points: int
    """Fitted and held out together."""
    settings: FitSettings


def judge(points: Points, *, name: str, settings: FitSettings) -> Judged:
    """Fits three quarters of the points, and judges by the rest."""
    fitted, held_out = split(points, settings)
    model = fit_model(fitted, name=name, settings=settings)
    return Judged(
        model=model,
        kinds=quality(held_out, model=model),
        points=len(points),
        settings=settings,
    )


def quality(points: Points, *, model: LatencyModel) -> tuple[KindFit, ...]:
    """R², MAPE and the 95th percentile of the error, per kind and over all."""
    predicted_s = predict_s(points, model=model)
    kinds = np.array(points.kinds)
    rows = [(kind, kinds == kind) for kind in KINDS if (kinds == kind).any()]
    rows.append(("all", np.ones(len(points), dtype=bool)))
    return tuple(
        KindFit(
            kind=kind,
            points=int(chosen.sum()),
            r2=r2(points.seconds[chosen], predicted_s[chosen]),
            mape=mape(points.seconds[chosen], predicted_s[chosen]),
            p95=float(np.quantile(np.abs(predicted_s[chosen] / points.seconds[chosen] - 1), 0.95)),
        )
        for kind, chosen in rows
    )


def r2(actual: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """The share of the variance that is predicted; nan for fewer than two different values."""
    spread = float(((actual - actual.mean()) ** 2).sum())
    if spread == 0:
        return float("nan")
    return 1 - float(((actual - predicted) ** 2).sum()) / spread


def mape(actual: Sequence[float] | NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Mean absolute relative error, as a share."""
    return float(np.mean(np.abs(predicted / np.asarray(actual) - 1)))
