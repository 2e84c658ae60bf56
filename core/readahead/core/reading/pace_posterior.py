"""What one user's reading so far says about his pace.

A count of tokens over a time of reading has mean pace x time; the conjugate of such counts is the
Gamma. Against a normal on log-pace it has three merits here. Counts and times add up, so that
cutting one report into many changes nothing. No token in some seconds is a datum, not log 0. And
a short report counts for little by itself, with no threshold. Paces of people spread about as a
Gamma of shape 10 does (a third of the mean).

Evidence fades with reading time, so that a user whose pace changes is followed, and nobody is
ever known more surely than the last minutes of reading allow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from readahead.core.reading.pace import PACE_TOK_S_MAX, PACE_TOK_S_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceSample:
    """A piece of reading: so many tokens, while he had something to read."""

    tokens: float
    active_s: float
    """Time in which he had text, stalls left out."""
    weight: float = 1.0
    """How far this kind of evidence is to be trusted, against a reading report."""

    def __post_init__(self) -> None:
        for name in ("tokens", "active_s", "weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, is {getattr(self, name)}")

    def bounded(self) -> PaceSample:
        """The sample as somebody reading it: not faster nor slower than people read.

        Above the fastest pace the rest was skipped, below the slowest he looked elsewhere for the
        rest of the time.
        """
        active_s = min(self.active_s, self.tokens / PACE_TOK_S_MIN)
        tokens = min(self.tokens, active_s * PACE_TOK_S_MAX)
        return PaceSample(tokens=tokens, active_s=active_s, weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """How paces spread over users: Gamma, and how lumpy one user's reading is."""

    mean_tok_s: float = 5.0
    shape: float = 10.0
    """1 / (coefficient of variation)^2 of pace over users."""
    dispersion: float = 4.0
    """Variance of a report's tokens over their mean: one reads by phrases, reports come by lines.
    A report counts as this many times fewer tokens."""
    half_life_s: float = 180.0
    """Reading time after which evidence counts half: a few answers."""

    def __post_init__(self) -> None:
        for name in ("mean_tok_s", "dispersion", "half_life_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and > 0, is {getattr(self, name)}")
        if not 1 <= self.shape < math.inf:  # below 1 the most likely pace would be none at all
            raise ValueError(f"shape must be finite and >= 1, is {self.shape}")

    @property
    def rate_s(self) -> float:
        """The prior's weight as a time of reading."""
        return self.shape / self.mean_tok_s

    @property
    def memory_s(self) -> float:
        """Reading time that evidence amounts to at most: an exponential memory's mean age."""
        return self.half_life_s / math.log(2) / self.dispersion


DEFAULT_POPULATION = Population()


@dataclass(frozen=True, slots=True, kw_only=True)
class PacePosterior:
    """Belief about one user's pace: Gamma(shape, rate). A value; each report makes another."""

    population: Population = DEFAULT_POPULATION
    evidence_tokens: float = 0.0
    """Tokens read, faded and thinned by the dispersion."""
    evidence_s: float = 0.0
    """Time of reading them, likewise."""

    def after(self, sample: PaceSample) -> PacePosterior:
        """The belief once this is known too. O(1); cutting a steady sample changes nothing."""
        sample = sample.bounded()
        if sample.active_s <= 0:
            return self
        memory_s = self.population.memory_s
        fades_over_s = memory_s * self.population.dispersion
        faded = -math.expm1(-sample.weight * sample.active_s / fades_over_s)
        pace_tok_s = sample.tokens / sample.active_s
        return PacePosterior(
            population=self.population,
            evidence_tokens=self.evidence_tokens
            + faded * (pace_tok_s * memory_s - self.evidence_tokens),
            evidence_s=self.evidence_s + faded * (memory_s - self.evidence_s),
        )

    @property
    def shape(self) -> float:
        """Of the Gamma."""
        return self.population.shape + self.evidence_tokens

    @property
    def rate_s(self) -> float:
        """Of the Gamma, seconds."""
        return self.population.rate_s + self.evidence_s

    @property
    def mean_tok_s(self) -> float:
        """The expected pace."""
        return _within_bounds(self.shape / self.rate_s)

    @property
    def evidence_share(self) -> float:
        """How much of the belief is the user's own reading, 0 to 1; the rest is the population."""
        return self.evidence_s / self.rate_s

    def scheduling_pace_tok_s(self, quantile: float) -> float:
        """The pace that he exceeds with probability 1 - quantile.

        One who reads faster than he is taken to runs out first, and waits; one who reads slower
        only holds memory a little longer. So scheduling wants an upper quantile.

        Wilson and Hilferty's normal approximation of a Gamma's cube root; for shapes of 10 and
        more it is right to 0.3 % between the quantiles 0.01 and 0.99.
        """
        if not 0 < quantile < 1:
            raise ValueError(f"quantile must be within 0 and 1, is {quantile}")
        spread = 1 / (9 * self.shape)
        root = 1 - spread + NormalDist().inv_cdf(quantile) * math.sqrt(spread)
        return _within_bounds(self.shape * max(0.0, root) ** 3 / self.rate_s)


def _within_bounds(pace_tok_s: float) -> float:
    return min(PACE_TOK_S_MAX, max(PACE_TOK_S_MIN, pace_tok_s))
