"""Fits what no convex function tells: sizes that a device's kernels like or dislike.

Matrix kernels work in tiles, so that 257 tokens can take a sixth longer than 256; attention
kernels split their work by the batch, so that the same KV is dearer to read for 32 requests than
for 64. Two curves say so, with knots at sizes known beforehand. They are moved together with the
planes by least squares on the relative errors, held near nothing where there is little to see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from readahead.core.latency.iteration import Curve, LatencyModel, LatencyPlane
from readahead.sim.calibration.points import FEATURES, Points

Array = NDArray[np.float64]

_TILED: Final = (64, 128, 256, 512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
TOKEN_KNOTS: Final = (1, 8, 16, 32, *sorted({*_TILED, *(size + 1 for size in _TILED)}), 16384)
"""A knot at each full tile and one just after it."""
REQUEST_KNOTS: Final = tuple(1 << power for power in range(10))
_TILE_SHARE_MAX: Final = 0.3
"""Of an iteration's least time at that size, that a tile may add or take."""
_WEIGHTS: Final = (0.3, 3.0)
_HELD_TILE: Final = 0.3
_HELD_WEIGHT: Final = 0.03
"""How strongly a curve is held to nothing: so many points' relative error of the same size. Chosen
on tables of which no profile ships (A100 with Qwen3-14B, H200 with Llama-3-8B)."""
_ROUNDS: Final = 3
_STEPS_MAX: Final = 60
_TOKENS: Final = FEATURES.index("tokens")
_REQUESTS: Final = FEATURES.index("requests")
_PAST: Final = FEATURES.index("past_tokens")


def with_curves(
    points: Points, *, model: LatencyModel, columns: Array, weights: Array, robust: float
) -> LatencyModel:
    """The model with `tile_s` and `kv_weight`, its planes moved to suit them.

    `columns` are the planes' features of each point, the base's last; `weights` multiply the
    points' relative errors, which count linearly from `robust` on. The model has no host's part.
    """
    fields = list(LatencyPlane.__dataclass_fields__)
    fit = _Fit.of(points, columns=columns, weights=weights)
    planes = np.array([[getattr(plane, name) for name in fields] for plane in model.planes])
    tokens, requests = len(fit.token_knots), len(fit.request_knots)
    start = np.concatenate([(planes * fit.scale).ravel(), np.zeros(tokens), np.ones(requests)])
    low = np.concatenate(
        [np.zeros(planes.size), np.full(tokens, -_TILE_SHARE_MAX), np.full(requests, _WEIGHTS[0])]
    )
    high = np.concatenate(
        [
            np.full(planes.size, np.inf),
            np.full(tokens, _TILE_SHARE_MAX),
            np.full(requests, _WEIGHTS[1]),
        ]
    )
    values = _solved(fit, start, (low, high), planes=planes.size, robust=robust)
    moved, shares, heavier = fit.parts(values)
    moved = np.where(columns.max(axis=0) == 0, 0.0, moved)  # as before: nothing is known of these
    return replace(
        model,
        planes=tuple(
            LatencyPlane(**dict(zip(fields, map(float, row), strict=True)))
            for row in moved / fit.scale
        ),
        tile_s=Curve(
            sizes=fit.token_knots, values=tuple(float(one) for one in shares * fit.least_s)
        ),
        kv_weight=Curve(sizes=fit.request_knots, values=tuple(float(one) for one in heavier)),
    )


def hats(sizes: Array, knots: tuple[int, ...]) -> Array:
    """By how much each knot's value counts for each size: a row times the values is the curve."""
    at = np.clip(sizes, knots[0], knots[-1])
    shares = np.zeros((len(at), len(knots)))
    if len(knots) == 1:
        return shares + 1
    ends = np.array(knots, dtype=np.float64)
    low = np.clip(np.searchsorted(ends, at, side="right") - 1, 0, len(knots) - 2)
    part = (at - ends[low]) / (ends[low + 1] - ends[low])
    rows = np.arange(len(at))
    shares[rows, low] = 1 - part
    shares[rows, low + 1] = part
    return shares


def within(knots: tuple[int, ...], most: float) -> tuple[int, ...]:
    """Those up to the first that is not below `most`."""
    kept = [knot for knot in knots if knot < most]
    return tuple(knots[: len(kept) + 1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """Errors, and their slopes, as functions of all that is fitted."""

    shape: Array
    """Columns over their greatest values."""
    scale: Array
    seconds: Array
    weights: Array
    tiles: Array
    """Hats of the tokens, times the least time at each knot."""
    batches: Array
    """Hats of the requests."""
    token_knots: tuple[int, ...]
    request_knots: tuple[int, ...]
    least_s: Array
    """At each of the token knots: the least time of an iteration of as many tokens or more."""

    @classmethod
    def of(cls, points: Points, *, columns: Array, weights: Array) -> _Fit:
        tokens, requests = points.work[:, _TOKENS], points.work[:, _REQUESTS]
        token_knots = within(TOKEN_KNOTS, float(tokens.max()))
        request_knots = within(REQUEST_KNOTS, float(requests.max()))
        order = np.argsort(tokens, kind="stable")
        least = np.minimum.accumulate(points.seconds[order][::-1])[::-1]
        least_s = np.interp(np.log(token_knots), np.log(tokens[order]), least)
        scale = columns.max(axis=0)
        scale[scale == 0] = 1.0
        return cls(
            shape=columns / scale,
            scale=scale,
            seconds=points.seconds,
            weights=weights,
            tiles=hats(tokens, token_knots) * least_s,
            batches=hats(requests, request_knots),
            token_knots=token_knots,
            request_knots=request_knots,
            least_s=least_s,
        )

    def parts(self, values: Array) -> tuple[Array, Array, Array]:
        """Planes, shares of the tiles, weights of the batches."""
        requests, tokens = len(self.request_knots), len(self.token_knots)
        planes = values[: len(values) - requests - tokens].reshape(-1, self.shape.shape[1])
        return planes, values[planes.size : planes.size + tokens], values[planes.size + tokens :]

    def errors(self, values: Array) -> Array:
        """Relative errors, and what holds the curves."""
        planes, shares, heavier = self.parts(values)
        device_s = (self._weighed(heavier) @ planes.T).max(axis=1)
        found: Array = np.concatenate(
            [
                self.weights * ((device_s + self.tiles @ shares) / self.seconds - 1),
                _HELD_TILE * shares,
                _HELD_WEIGHT * (heavier - 1),
            ]
        )
        return found

    def slopes(self, values: Array) -> Array:
        """Of the errors."""
        planes, shares, heavier = self.parts(values)
        weighed = self._weighed(heavier)
        rows, owner = np.arange(len(weighed)), (weighed @ planes.T).argmax(axis=1)
        by_plane = np.zeros((len(rows), *planes.shape))
        by_plane[rows, owner] = weighed
        by_weight = (planes[owner, _PAST] * self.shape[:, _PAST])[:, None] * self.batches
        of_points = np.hstack([by_plane.reshape(len(rows), -1), self.tiles, by_weight])
        held = np.diag(
            [0.0] * planes.size + [_HELD_TILE] * len(shares) + [_HELD_WEIGHT] * len(heavier)
        )[planes.size :]
        found: Array = np.vstack([(self.weights / self.seconds)[:, None] * of_points, held])
        return found

    def _weighed(self, heavier: Array) -> Array:
        columns = self.shape.copy()
        columns[:, _PAST] *= self.batches @ heavier
        return columns


def _solved(
    fit: _Fit, start: Array, bounds: tuple[Array, Array], *, planes: int, robust: float
) -> Array:
    """By turns the curves, the planes, and all together."""
    low, high = bounds
    values = start.copy()
    everything = np.arange(len(start))
    for _ in range(_ROUNDS):
        for chosen in (everything[planes:], everything[:planes], everything):
            values = _moved(fit, values, chosen, (low[chosen], high[chosen]), robust)
    return values


def _moved(
    fit: _Fit,
    values: Array,
    chosen: NDArray[np.intp],
    bounds: tuple[Array, Array],
    robust: float,
) -> Array:
    """The values with those chosen moved to the nearest optimum."""

    def whole(some: Array) -> Array:
        every = values.copy()
        every[chosen] = some
        return every

    solved = least_squares(
        lambda some: fit.errors(whole(some)),
        np.clip(values[chosen], bounds[0] + 1e-12, bounds[1] - 1e-12),
        jac=lambda some: fit.slopes(whole(some))[:, chosen],
        bounds=bounds,
        loss="soft_l1",
        f_scale=robust,
        max_nfev=_STEPS_MAX,
        x_scale="jac",
    )
    return whole(solved.x)
