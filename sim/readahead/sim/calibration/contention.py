"""Iteration times of engines that share a machine, apart from what they do to each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from readahead.core.latency.iteration import LatencyModel
from readahead.sim.calibration.fit import FitSettings, predict_s
from readahead.sim.calibration.points import FEATURES, Points, joined, read_iteration_log
from readahead.sim.calibration.quality import fit_logs

ROUNDS = 6
"""Of fitting times and what comes to them, in turns; the last moves the share by below 0.001."""
YOUNG_TOKENS = 24
"""For so many tokens an answer that begins makes work for others on the machine: the router hands
out the first ones singly, their reader has nothing to read yet."""
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Iterations of one worker in one run, and what else went on meanwhile."""

    points: Points
    others: FloatArray
    """How many other engines computed, in the mean over each iteration."""
    young: FloatArray
    """How many of its requests had fewer than YOUNG_TOKENS tokens of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """How long iterations take: undisturbed ones, longer by a share for each other engine, and by
    some time for each young request."""

    model: LatencyModel
    contention: float
    young_s: float = 0.0

    def predict_s(self, log: Log) -> FloatArray:
        """What is said of each iteration."""
        quiet_s = predict_s(log.points, model=self.model) + self.young_s * log.young
        return quiet_s * (1 + self.contention * log.others)


def read_log(path: Path, others: Sequence[Path]) -> Log:
    """A worker's log, beside those of the others on its machine."""
    own = _spans(path)
    busy = np.zeros(len(own))
    for other in others:
        busy += _computed_within(own, _spans(other))
    lasted = np.maximum(own[:, 1] - own[:, 0], 1e-9)
    points = read_iteration_log(path)
    return Log(points=points, others=busy / lasted, young=_young(points))


def fit_shared(logs: Sequence[Log], *, name: str, settings: FitSettings) -> Shared:
    """Times as they would be alone, the share and the time of the young, each fitted with the
    others kept, in turns."""
    points, others = joined([log.points for log in logs]), np.concatenate([x.others for x in logs])
    young = np.concatenate([log.young for log in logs])
    found = Shared(model=fit_logs([points], name=name, settings=settings), contention=0.0)
    for _ in range(ROUNDS):
        quiet_s = predict_s(points, model=found.model) + found.young_s * young
        # Least squares of seconds = quiet * (1 + share * others), relative to quiet.
        excess = points.seconds / quiet_s - 1
        weight = others @ (others * quiet_s)
        share = max(0.0, float(others @ (excess * quiet_s) / weight)) if weight > 0 else 0.0
        alone_s = points.seconds / (1 + share * others)
        young_s = max(0.0, found.young_s + _slope(young, alone_s - quiet_s))
        alone = replace(points, seconds=np.maximum(alone_s - young_s * young, alone_s / 4))
        model = fit_logs([alone], name=name, settings=settings)
        found = Shared(model=model, contention=share, young_s=young_s)
    return found


def _slope(by: FloatArray, of: FloatArray) -> float:
    """By least squares, with a constant."""
    spread = float(((by - by.mean()) ** 2).sum())
    return float((by - by.mean()) @ (of - of.mean())) / spread if spread > 0 else 0.0


def _young(points: Points) -> FloatArray:
    """Of each iteration, from its requests and past tokens alone: each that stays brings one past
    token more, so that what is missing tells who left, and what is too much that one has joined.
    """
    requests = points.work[:, FEATURES.index("requests")].astype(int)
    past = points.work[:, FEATURES.index("past_tokens")].astype(int)
    there: list[_There] = []
    young = np.zeros(len(points))
    for index, (count, read) in enumerate(zip(requests, past, strict=True)):
        there = [_There(one.age + 1, one.past + 1) for one in there]
        has_changed = count == len(there) and read != sum(one.past for one in there)
        staying = count - 1 if has_changed else min(count, len(there))
        joining = count - max(0, staying)
        while there and len(there) > staying:
            missing = sum(one.past for one in there) - read
            # Beside one who joins, what is missing says nothing: then it is the oldest.
            there.remove(
                max(there, key=lambda one: one.age)
                if joining
                else min(there, key=lambda one: abs(one.past - missing / (len(there) - staying)))
            )
        more = max(0, read - sum(one.past for one in there))
        there += [_There(0, more // joining) for _ in range(joining)]
        young[index] = sum(one.age < YOUNG_TOKENS for one in there)
    return young


class _There(NamedTuple):
    """A request that is being served: its tokens so far, and its past ones."""

    age: int
    past: int


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
