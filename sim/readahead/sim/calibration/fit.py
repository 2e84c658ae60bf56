"""Fits the planes of an iteration-time model to points.

The greatest of K planes is convex in the work and linear on each piece, so it is fitted by turns:
each point goes to the plane that rules it, then all coefficients are moved by a Gauss-Newton step
on the relative errors, within bounds >= 0. Several starts, since the turns end in the nearest
optimum. Coefficients >= 0 keep the model monotone: more work never takes less time.

Ref: Magnani and Boyd, "Convex piecewise-linear fitting", Optimization and Engineering 10, 2009:
     assignment by turns.
Differs: relative instead of absolute error, coefficients >= 0, and a common refinement of all
     planes by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares, nnls

from readahead.core.latency.iteration import LatencyModel, LatencyPlane
from readahead.sim.calibration.curves import hats, with_curves
from readahead.sim.calibration.points import FEATURES, Points

COEFFICIENTS: Final = tuple(
    {"tokens": "token_s", "requests": "request_s", "past_tokens": "past_token_s"}.get(
        name, name[:-1] + "_s"
    )
    for name in FEATURES
)
"""Fields of LatencyPlane, in the order of FEATURES; the base comes last."""

_TURNS: Final = 30
_STEPS_MAX: Final = 40
_PAIRS: Final = FEATURES.index("prefill_pairs")
_PAST: Final = FEATURES.index("past_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a fit is made."""

    planes: int = 8
    starts: int = 2
    seed: int = 1
    held_out: float = 0.25
    """Share of the points that are kept for judging only."""
    mixing: tuple[float, ...] = (1.0,)
    """Values of LatencyModel.mixing to try; the one with the least error is taken."""
    robust: float = 0.05
    """Relative error from which a point's pull grows no more than linearly."""
    has_curves: bool = True
    """Fit `tile_s` and `kv_weight` too: for tables, whose sizes lie on a grid."""

    def __post_init__(self) -> None:
        if self.planes < 1 or self.starts < 1:
            raise ValueError("planes and starts must be >= 1")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out must be within 0 and 1, is {self.held_out}")
        if not self.mixing or min(self.mixing) < 1:
            raise ValueError("mixing must hold values >= 1")


def split(points: Points, settings: FitSettings) -> tuple[Points, Points]:
    """The points to fit and those held out, drawn by the seed."""
    order = np.random.default_rng(settings.seed).permutation(len(points))
    count = max(1, round(len(points) * settings.held_out))
    if count >= len(points):
        raise ValueError(f"{len(points)} points are too few to hold some out")
    return points.chosen(np.sort(order[count:])), points.chosen(np.sort(order[:count]))


def fit_model(points: Points, *, name: str, settings: FitSettings) -> LatencyModel:
    """The model that fits these points best: all of them, none held out."""
    best: tuple[float, float, NDArray[np.float64]] | None = None
    for mixing in settings.mixing:
        cost, planes = _fit_planes(points, mixing, settings)
        if best is None or cost < best[0]:
            best = (cost, mixing, planes)
    if best is None:  # mixing is not empty
        raise ValueError("no values of mixing to try")
    model = LatencyModel(
        name=name,
        planes=tuple(
            LatencyPlane(
                **{field: float(row[index]) for index, field in enumerate(COEFFICIENTS)},
                base_s=float(row[-1]),
            )
            for row in best[2]
        ),
        mixing=best[1],
    )
    if not settings.has_curves:
        return model
    return with_curves(
        points,
        model=model,
        columns=design(points, mixing=model.mixing),
        weights=_weights(points),
        robust=settings.robust,
    )


def predict_s(points: Points, *, model: LatencyModel) -> NDArray[np.float64]:
    """What the model says of each point; the same as `iteration_s`."""
    planes = np.array(
        [[getattr(plane, field) for field in (*COEFFICIENTS, "base_s")] for plane in model.planes]
    )
    columns = design(points, mixing=model.mixing)
    requests = points.work[:, FEATURES.index("requests")]
    if (weight := model.kv_weight) is not None:
        columns[:, _PAST] *= hats(requests, weight.sizes) @ np.array(weight.values)
    took_s = (columns @ planes.T).max(axis=1) + model.host_base_s + model.host_request_s * requests
    if (tiles := model.tile_s) is not None:
        tokens = points.work[:, FEATURES.index("tokens")]
        took_s += hats(tokens, tiles.sizes) @ np.array(tiles.values)
    predicted: NDArray[np.float64] = model.time_scale * took_s
    return predicted


def design(points: Points, *, mixing: float) -> NDArray[np.float64]:
    """The features and a column of ones; past tokens count `mixing` times beside a chunk."""
    columns = np.column_stack([points.work, np.ones(len(points))])
    columns[:, _PAST] *= np.where(points.work[:, _PAIRS] > 0, mixing, 1.0)
    return columns


def _fit_planes(
    points: Points, mixing: float, settings: FitSettings
) -> tuple[float, NDArray[np.float64]]:
    """The best of several starts: its cost, and its planes in seconds."""
    columns = design(points, mixing=mixing)
    scale = columns.max(axis=0)
    scale[scale == 0] = 1.0
    relative = columns / scale / points.seconds[:, None]
    weights = _weights(points)
    random = np.random.default_rng(settings.seed)
    best: tuple[float, NDArray[np.float64]] | None = None
    for start in range(settings.starts):
        planes = _assigned_by_turns(relative, columns / scale, settings.planes, random, start)
        cost, planes = _refined(relative, planes, weights, robust=settings.robust)
        if best is None or cost < best[0]:
            best = (cost, planes)
    if best is None:  # starts >= 1
        raise ValueError("starts must be >= 1")
    planes = best[1] / scale
    planes[:, columns.max(axis=0) == 0] = 0.0  # of what never occurred nothing is known
    ruling = np.unique((columns @ planes.T).argmax(axis=1))
    return best[0], planes[ruling]


def _assigned_by_turns(
    relative: NDArray[np.float64],
    shape: NDArray[np.float64],
    count: int,
    random: np.random.Generator,
    start: int,
) -> NDArray[np.float64]:
    """Planes by turns of assignment and least squares, from centres drawn at random."""
    where = np.log1p(1e3 * shape[:, :-1]) + 1e-3 * (start + 1)
    centres = where[random.choice(len(where), size=min(count, len(where)), replace=False)]
    owner = ((where[:, None, :] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    ones = np.ones(len(relative))
    overall = nnls(relative, ones)[0]
    planes = np.tile(overall, (count, 1))
    for _ in range(_TURNS):
        for index in range(count):
            mine = owner == index
            if mine.sum() >= 3:
                planes[index] = nnls(relative[mine], ones[mine])[0]
        following = (relative @ planes.T).argmax(axis=1)
        if (following == owner).all():
            break
        owner = following
    return planes


def _weights(points: Points) -> NDArray[np.float64]:
    """What each point's error is multiplied by.

    Each kind counts the same in all. Within a kind long iterations count more, by the fourth root:
    the relative error cares for each point alike, R² for the longest alone.
    """
    kinds = np.array(points.kinds)
    names, counts = np.unique(kinds, return_counts=True)
    share = dict(zip(names, len(points) / len(names) / counts, strict=True))
    balance = np.sqrt(np.array([share[kind] for kind in kinds]))
    for kind in names:
        mine = kinds == kind
        balance[mine] *= (points.seconds[mine] / np.median(points.seconds[mine])) ** 0.25
    if points.counts is not None:
        balance *= np.sqrt(points.counts / points.counts.mean())
    weights: NDArray[np.float64] = balance
    return weights


def _refined(
    relative: NDArray[np.float64],
    planes: NDArray[np.float64],
    weights: NDArray[np.float64],
    *,
    robust: float,
) -> tuple[float, NDArray[np.float64]]:
    """All planes moved together to the nearest optimum of the relative errors."""
    count, width = planes.shape
    rows = np.arange(len(relative))

    def errors(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = (relative @ flat.reshape(count, width).T).max(axis=1)
        return weights * (values - 1)

    def slopes(flat: NDArray[np.float64]) -> NDArray[np.float64]:
        owner = (relative @ flat.reshape(count, width).T).argmax(axis=1)
        jacobian = np.zeros((len(relative), count, width))
        jacobian[rows, owner] = weights[:, None] * relative
        return jacobian.reshape(len(relative), count * width)

    solved = least_squares(
        errors,
        np.maximum(planes.ravel(), 1e-12),
        jac=slopes,
        bounds=(0, np.inf),
        loss="soft_l1",
        f_scale=robust,
        max_nfev=_STEPS_MAX,
        x_scale="jac",
    )
    return float(solved.cost), solved.x.reshape(count, width)
