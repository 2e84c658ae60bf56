"""Populations of readers: how the people who come differ.

Only the paces have sources; what people do besides reading on is an assumption of each run, stated
with it. The defaults therefore let everybody read to the end, with no patience to lose.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields

from readahead.core.reading.benefit import DEFAULT_PACE_TOK_S
from readahead.core.reading.pace import PACE_TOK_S_MAX, PACE_TOK_S_MIN
from readahead.workload.lengths import Lengths, LognormalLength
from readahead.workload.reader import Reader
from readahead.workload.streams import STEP, WORD, mixed


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Lognormal times, seconds."""

    median_s: float
    sigma: float = 0.0
    """Standard deviation of the logarithm; 0: always the median."""

    def __post_init__(self) -> None:
        if not 0 < self.median_s < math.inf:
            raise ValueError(f"median_s must be finite and > 0, is {self.median_s}")
        if not 0 <= self.sigma <= 4:
            raise ValueError(f"sigma must be within 0..4, is {self.sigma}")

    def draw(self, rng: random.Random) -> float:
        """One."""
        return self.median_s * math.exp(self.sigma * rng.normalvariate(0.0, 1.0))


DEFAULT_PATIENCE = Durations(median_s=20.0, sigma=0.7)
DEFAULT_THINK_TIME = Durations(median_s=10.0, sigma=1.0)
DEFAULT_LEAVES_AFTER = LognormalLength(median_tokens=150, sigma=0.8)
DEFAULT_SKIMS_FROM = LognormalLength(median_tokens=100, sigma=0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderPopulation:
    """Draws readers. Shares are of users, 0..1."""

    pace_median_tok_s: float = DEFAULT_PACE_TOK_S
    """Adults read 3 to 4 words a second, at about 1.3 tokens a word. Ref: [SmoothGoodput]."""
    pace_sigma: float = 0.3
    """Spread of log-pace over users; the coefficient of variation that the router's prior has."""
    drift_sigma_per_100_tokens: float = 0.0
    """Spread over users of the relative change of pace in 100 tokens. Assumption: steady."""
    tells_pace_share: float = 1.0
    """Whose requests say their pace. Assumption: the client knows it."""
    reports_share: float = 0.0
    """Who reports what he has read. Assumption: a plain OpenAI client, which cannot."""
    report_every_s: float = 1.0
    """How often those report."""
    impatient_share: float = 0.0
    """Who leaves when one wait lasts too long. No source; set it for the run."""
    patience: Durations = DEFAULT_PATIENCE
    """How long those wait. About 10 s holds attention; that people leave at twice that is an
    assumption."""
    leaves_share: float = 0.0
    """Who leaves before the end because he has read enough. No source."""
    leaves_after: Lengths = DEFAULT_LEAVES_AFTER
    """After how many tokens those leave. Assumption."""
    skims_share: float = 0.0
    """Who reads the beginning and skims the rest. No source."""
    skims_from: Lengths = DEFAULT_SKIMS_FROM
    """From which token those skim. Assumption."""
    skim_factor: float = 4.0
    """How much faster skimming is. Assumption."""
    think_time: Durations = DEFAULT_THINK_TIME
    """From the end of reading to the next message of a conversation. Assumption."""

    def __post_init__(self) -> None:
        if not PACE_TOK_S_MIN <= self.pace_median_tok_s <= PACE_TOK_S_MAX:
            raise ValueError(
                f"pace_median_tok_s must be within {PACE_TOK_S_MIN:g}..{PACE_TOK_S_MAX:g},"
                f" is {self.pace_median_tok_s}"
            )
        for name, most in (("pace_sigma", 2.0), ("drift_sigma_per_100_tokens", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be within 0..{most:g}, is {getattr(self, name)}")
        for one in fields(self):
            if one.name.endswith("_share") and not 0 <= getattr(self, one.name) <= 1:
                raise ValueError(f"{one.name} must be within 0..1, is {getattr(self, one.name)}")
        if not 0 < self.report_every_s < math.inf:
            raise ValueError(f"report_every_s must be finite and > 0, is {self.report_every_s}")
        if not 1 <= self.skim_factor <= 100:
            raise ValueError(f"skim_factor must be within 1..100, is {self.skim_factor}")

    def draw(self, rng: random.Random) -> Reader:
        """One reader. Each habit has random numbers of its own, so that changing one share changes
        nothing else about anybody; one that nobody or everybody has costs nothing to draw."""
        pace_tok_s = self.pace_median_tok_s * math.exp(self.pace_sigma * rng.gauss(0.0, 1.0))
        drift = self.drift_sigma_per_100_tokens * rng.gauss(0.0, 1.0)
        word = rng.getrandbits(64)
        patience_s = leaves_after = skims_from = None
        if _has(self.impatient_share, word, 0):
            patience_s = self.patience.draw(random.Random(f"{word}/patience"))
        if _has(self.leaves_share, word, 1):
            leaves_after = self.leaves_after.draw(random.Random(f"{word}/leaves"))
        if _has(self.skims_share, word, 2):
            skims_from = self.skims_from.draw(random.Random(f"{word}/skims"))
        reports = _has(self.reports_share, word, 3)
        return Reader(
            pace_tok_s=min(max(pace_tok_s, PACE_TOK_S_MIN), PACE_TOK_S_MAX),
            drift_per_100_tokens=min(max(drift, -0.9), 0.9),
            tells_pace=_has(self.tells_pace_share, word, 4),
            report_every_s=self.report_every_s if reports else None,
            patience_s=patience_s,
            leaves_after_tokens=leaves_after,
            skims_from_tokens=skims_from,
            skim_factor=self.skim_factor,
        )

    def draw_think_s(self, rng: random.Random) -> float:
        """From the end of reading to the next message."""
        return self.think_time.draw(rng)


def _has(share: float, word: int, habit: int) -> bool:
    """Whether one whose random word this is has a habit that this share of users has."""
    if share <= 0 or share >= 1:
        return share >= 1
    return mixed(word + (habit + 1) * STEP & WORD) < share * (WORD + 1)


DEFAULT_READERS = ReaderPopulation()

CHAT_READERS = ReaderPopulation(pace_median_tok_s=6.0)
"""Light reading: the upper end of 3 to 4 words a second, and a little more. Assumption."""

LONG_TEXT_READERS = ReaderPopulation(pace_median_tok_s=3.0)
"""Long summaries, read with care: below 3 words a second. Assumption."""

READERS = {"default": DEFAULT_READERS, "chat": CHAT_READERS, "long": LONG_TEXT_READERS}
"""Presets by name."""
