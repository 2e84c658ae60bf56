"""Iteration times of engines that share a machine, apart from what they do to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from readahead.core.latency.iteration import LatencyModel
from readahead.sim.calibration.fit import FitSettings, predict_s
from readahead.sim.calibration.points import Points, joined, read_iteration_log
from readahead.sim.calibration.quality import fit_logs

ROUNDS = 6
"""Of fitting times and their share in turns; the share moves by less than 0.001 in the last."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Iterations of one worker in one run, and what others computed meanwhile."""

    points: Points
    others: FloatArray
    """How many other engines computed, in the mean over each iteration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """How long iterations take: undisturbed ones, and longer by a share for each other engine."""

    model: LatencyModel
    contention: float


def read_log(path: Path, others: Sequence[Path]) -> Log:
    """A worker's log, beside those of the others on its machine."""
    own = _spans(path)
    busy = np.zeros(len(own))
    for other in others:
        busy += _computed_within(own, _spans(other))
    lasted = np.maximum(own[:, 1] - own[:, 0], 1e-9)
    return Log(points=read_iteration_log(path), others=busy / lasted)


def fit_shared(logs: Sequence[Log], *, name: str, settings: FitSettings) -> Shared:
    """Times as they would be alone, and the share, each fitted with the other kept, in turns."""
    points, others = joined([log.points for log in logs]), np.concatenate([x.others for x in logs])
    share, model = 0.0, fit_logs([points], name=name, settings=settings)
    for _ in range(ROUNDS):
        quiet_s = predict_s(points, model=model)
        # Least squares of seconds = quiet * (1 + share * others), relative to quiet.
        excess = points.seconds / quiet_s - 1
        weight = others @ (others * quiet_s)
        share = max(0.0, float(others @ (excess * quiet_s) / weight)) if weight > 0 else 0.0
        alone = replace(points, seconds=points.seconds / (1 + share * others))
        model = fit_logs([alone], name=name, settings=settings)
    return Shared(model=model, contention=share)


def _spans(path: Path) -> FloatArray:
    """Begin and end of each iteration with tokens, in order of time."""
    lines = (json.loads(line) for line in path.read_text().splitlines() if line.strip())
    spans = [(one["began_s"], one["began_s"] + one["seconds"]) for one in lines if one["tokens"]]
    return np.array(spans, dtype=np.float64).reshape(-1, 2)


def _computed_within(own: FloatArray, other: FloatArray) -> FloatArray:
    """Seconds of the other's iterations within each of ours."""
    ends = np.concatenate(([0.0], np.cumsum(other[:, 1] - other[:, 0])))

    def computed_by(times: FloatArray) -> FloatArray:
        begun = np.searchsorted(other[:, 0], times)
        last = np.maximum(begun - 1, 0)
        inside = np.minimum(times - other[last, 0], other[last, 1] - other[last, 0])
        return np.where(begun > 0, ends[last] + np.maximum(inside, 0.0), 0.0)

    return computed_by(own[:, 1]) - computed_by(own[:, 0])
