"""How long answers become, as those that ended here tell."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import deque
from dataclasses import dataclass, field

WINDOW = 256
"""Answers that are remembered."""
LEAST = 8
"""Answers of such a length or longer without which nothing is said of their mean."""


@dataclass(slots=True)
class AnswerLengths:
    """The mean of the answers that ended last, among those as long as one is already."""

    _latest: deque[int] = field(default_factory=deque)
    _ascending: list[int] = field(default_factory=list)
    _sums: list[int] = field(default_factory=list)
    """Of all lengths from an index on; [] where they have changed."""

    def add(self, tokens: int) -> None:
        """An answer of so many tokens has ended."""
        self._latest.append(tokens)
        bisect.insort(self._ascending, tokens)
        if len(self._latest) > WINDOW:
            oldest = self._latest.popleft()
            del self._ascending[bisect.bisect_left(self._ascending, oldest)]
        self._sums = []

    def expected(self, generated: int, *, most: int) -> int:
        """Tokens that an answer of so many will have in the end; `most` while nothing is known.

        One that is longer than nearly all becomes twice as long as it is.
        """
        lengths = self._ascending
        if len(lengths) < LEAST:
            return most
        longer = len(lengths) - bisect.bisect_right(lengths, generated)
        if longer < LEAST:
            return min(most, max(2 * generated, lengths[-1]))
        if not self._sums:
            self._sums = list(itertools.accumulate(reversed(lengths)))
        return min(most, math.ceil(self._sums[longer - 1] / longer))
