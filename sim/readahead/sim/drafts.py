"""Which drafted tokens of a simulated answer are right: a property of its text, not of engines."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from readahead.core.config import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictability:
    """How probably a drafted token is right if all before it are; each answer has its own."""

    mean: float = 0.6
    """SLOs-Serve's default."""
    spread: float = 0.15
    """Standard deviation from answer to answer; of a beta distribution."""

    def __post_init__(self) -> None:
        require("mean", self.mean, least=0, most=1)
        most = math.sqrt(self.mean * (1 - self.mean))
        require("spread", self.spread, least=0, most=most)

    def draw(self, random_stream: random.Random) -> float:
        """One answer's."""
        mean, variance = self.mean, self.spread * self.spread
        if variance == 0:
            return mean
        weight = mean * (1 - mean) / variance - 1
        if weight <= 0:  # as far apart as can be: all or nothing
            return float(random_stream.random() < mean)
        return random_stream.betavariate(mean * weight, (1 - mean) * weight)


class RightDrafts:
    """Says of each place in one answer whether a draft for it would be right.

    The same whoever asks, and when: two policies are compared on the same text.
    """

    __slots__ = ("_draw", "_is_right", "_rate")

    def __init__(self, about: Predictability, *, seed: str) -> None:
        self._draw = random.Random(seed)
        self._rate = about.draw(self._draw)
        self._is_right = bytearray()

    def accepted(self, drafted: int, *, after: int) -> int:
        """How many of so many drafted tokens are right, behind the answer's first `after`."""
        known = self._is_right
        while len(known) < after + drafted:
            known.append(self._draw.random() < self._rate)
        for index in range(drafted):
            if not known[after + index]:
                return index
        return drafted
