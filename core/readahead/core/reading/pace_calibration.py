"""How paces spread over users, found from many users' reading."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from readahead.core.reading.pace_posterior import (
    DEFAULT_POPULATION,
    PacePosterior,
    PaceSample,
    Population,
)

USERS_MIN = 5
"""Fewer say nothing of how paces spread."""

ACTIVE_S_MIN = 5.0
"""A user read for less than this is left out: some 25 tokens."""

SHAPE_MIN, SHAPE_MAX = 2.0, 100.0
"""The spread over users is taken as between 10 and 70 % of the mean: with less, a newcomer would
not be listened to; with more, he would have no prior at all."""

DISPERSION_MIN = 1.0
"""Reading steadier than that (a program's) still is not more than a token's datum per token."""


class TooFewUsersError(ValueError):
    """There is too little reading to learn from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The population, and what it was found from."""

    population: Population
    users: int
    samples: int
    users_left_out: int
    """They read too little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _User:
    tokens: float
    active_s: float
    samples: tuple[PaceSample, ...]

    @property
    def pace_tok_s(self) -> float:
        return self.tokens / self.active_s


def calibrate(
    samples: Mapping[str, Sequence[PaceSample]], *, half_life_s: float | None = None
) -> Calibration:
    """Fits a population to users' samples, by moments.

    The dispersion is the samples' mean squared deviation from their own user's pace, over what
    counts would have. The spread over users is that of their paces, less what their samples
    alone would give it. Only users of whom two samples are known tell of the dispersion; where
    there are none, the usual one is kept.

    Raises:
        TooFewUsersError: fewer than five users have read for five seconds.
    """
    each = [_user(of_one) for of_one in samples.values()]
    users = [user for user in each if user is not None]
    if len(users) < USERS_MIN:
        raise TooFewUsersError(f"{len(users)} users have read enough; {USERS_MIN} are needed")
    dispersion = _dispersion(users)
    mean_tok_s = math.fsum(user.pace_tok_s for user in users) / len(users)
    spread = math.fsum((user.pace_tok_s - mean_tok_s) ** 2 for user in users) / (len(users) - 1)
    by_chance = dispersion * mean_tok_s * math.fsum(1 / user.active_s for user in users)
    variance = spread - by_chance / len(users)
    shape = mean_tok_s**2 / variance if variance > 0 else SHAPE_MAX
    return Calibration(
        population=Population(
            mean_tok_s=mean_tok_s,
            shape=min(SHAPE_MAX, max(SHAPE_MIN, shape)),
            dispersion=dispersion,
            half_life_s=half_life_s or DEFAULT_POPULATION.half_life_s,
        ),
        users=len(users),
        samples=sum(len(user.samples) for user in users),
        users_left_out=len(each) - len(users),
    )


def replay(samples: Sequence[PaceSample], population: Population) -> PacePosterior:
    """One user's belief after all of this, oldest first."""
    posterior = PacePosterior(population=population)
    for sample in samples:
        posterior = posterior.after(sample)
    return posterior


def _user(samples: Sequence[PaceSample]) -> _User | None:
    """None: too little reading. Weak evidence counts as that much less of it."""
    bounded = tuple(one for sample in samples if (one := sample.bounded()).active_s > 0)
    tokens = math.fsum(one.weight * one.tokens for one in bounded)
    active_s = math.fsum(one.weight * one.active_s for one in bounded)
    if active_s < ACTIVE_S_MIN:
        return None
    return _User(tokens=tokens, active_s=active_s, samples=bounded)


def _dispersion(users: Sequence[_User]) -> float:
    deviations, freedom = [0.0], 0
    for user in users:
        freedom += len(user.samples) - 1
        for one in user.samples:
            expected = user.pace_tok_s * one.active_s
            deviations.append(one.weight * (one.tokens - expected) ** 2 / expected)
    if not freedom:
        return DEFAULT_POPULATION.dispersion
    return max(DISPERSION_MIN, math.fsum(deviations) / freedom)
