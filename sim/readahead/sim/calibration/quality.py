"""How well a model predicts points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from readahead.core.latency.iteration import LatencyModel
from readahead.core.latency.profile import KindFit
from readahead.sim.calibration.fit import FitSettings, fit_model, predict_s, split
from readahead.sim.calibration.points import KINDS, Points, averaged, joined

ALIKE_MIN = 10
"""Iterations whose mean is worth judging by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A model and how it did on points that it was not fitted to."""

    model: LatencyModel
    kinds: tuple[KindFit, ...]
    """One for each kind that was held out, and `all`."""
    points: int
    """Fitted and held out together."""
    settings: FitSettings
    held_out: str
    """What it was judged by, in words."""


def judge(points: Points, *, name: str, settings: FitSettings) -> Judged:
    """Fits three quarters of the points, and judges by the rest."""
    fitted, held_out = split(points, settings)
    model = fit_model(fitted, name=name, settings=settings)
    return Judged(
        model=model,
        kinds=quality(held_out, model=model),
        points=len(points),
        settings=settings,
        held_out=f"{settings.held_out:.0%} held out (seed {settings.seed})",
    )


def judge_logs(logs: Sequence[Points], *, name: str, settings: FitSettings) -> Judged:
    """Fits the first part of each log, in time, and judges by the rest: means of iterations alike.

    What is held out is `settings.held_out` of each, its last; of that, means of fewer than
    ALIKE_MIN iterations are noise and are left out, if the kind has any of more.
    """
    first = [
        log.chosen(np.arange(len(log)) < round(len(log) * (1 - settings.held_out))) for log in logs
    ]
    last = [
        log.chosen(np.arange(len(log)) >= round(len(log) * (1 - settings.held_out))) for log in logs
    ]
    rest = averaged(joined(last))
    model = fit_logs(first, name=name, settings=settings)
    return Judged(
        model=model,
        kinds=quality(rest.chosen(_worth_judging(rest)), model=model),
        points=sum(map(len, logs)),
        settings=settings,
        held_out=f"the last {settings.held_out:.0%} of each log held out, judged by its means",
    )


def _worth_judging(means: Points) -> NDArray[np.bool_]:
    """Those of ALIKE_MIN iterations or more; of a kind that has none such, its greatest."""
    counts = means.counts if means.counts is not None else np.ones(len(means))
    kinds = np.array(means.kinds)
    most = {kind: counts[kinds == kind].max() for kind in np.unique(kinds)}
    least = np.array([min(ALIKE_MIN, most[kind]) for kind in means.kinds])
    worth: NDArray[np.bool_] = counts >= least
    return worth


def fit_logs(logs: Sequence[Points], *, name: str, settings: FitSettings) -> LatencyModel:
    """The model of workers' iterations: fitted to means, then scaled to take as long in all as
    they did, for a fit to relative errors leans towards the short ones."""
    points = joined(logs)
    model = fit_model(averaged(points), name=name, settings=settings)
    predicted_s = float(predict_s(points, model=model).sum())
    return replace(model, time_scale=float(points.seconds.sum()) / predicted_s)


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
