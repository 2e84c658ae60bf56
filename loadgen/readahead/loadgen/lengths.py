"""How long prompts and answers are."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

TOKENS_MAX = 1 << 20
"""Above every context window in use; a longer draw would be refused by all."""


class Lengths(Protocol):
    """A distribution of lengths. Pure: all randomness is the caller's."""

    def draw(self, rng: random.Random) -> int:
        """A length, tokens, at least 1."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedLength:
    """Always the same."""

    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= TOKENS_MAX:
            raise ValueError(f"a length must be within 1..{TOKENS_MAX} tokens, got {self.tokens}")

    def draw(self, rng: random.Random) -> int:
        """The length."""
        return self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLength:
    """Lognormal, the shape that prompts and answers of people have; cut at `tokens_max`."""

    median_tokens: float
    sigma: float
    """Standard deviation of the logarithm. 1: one draw in six is above 2.7 medians."""
    tokens_max: int = TOKENS_MAX
    """A longer draw is drawn again, so that the cap makes no heap of equal lengths."""

    def __post_init__(self) -> None:
        if not 1 <= self.median_tokens <= self.tokens_max <= TOKENS_MAX:
            raise ValueError(f"1 <= median <= max <= {TOKENS_MAX} must hold")
        if not 0 <= self.sigma <= 4:
            raise ValueError(f"sigma must be within 0..4, got {self.sigma}")

    def draw(self, rng: random.Random) -> int:
        """At least 1. Half of all draws are at most the median, so drawing again ends soon."""
        while True:
            tokens = max(1, round(rng.lognormvariate(math.log(self.median_tokens), self.sigma)))
            if tokens <= max(self.tokens_max, 1):
                return tokens


def parse_lengths(text: str) -> Lengths:
    """Reads "128" or "lognormal:median=200,sigma=0.8[,max=2048]".

    Raises:
        ValueError: it is neither; the message says what was expected.
    """
    kind, colon, rest = text.partition(":")
    try:
        if not colon:
            return FixedLength(tokens=int(kind))
        if kind != "lognormal":
            raise ValueError(f"no distribution is called {kind!r}")
        fields = dict(_field(part) for part in rest.split(","))
        unknown = fields.keys() - {"median", "sigma", "max"}
        if unknown:
            raise ValueError(f"lognormal has no {sorted(unknown)[0]!r}")
        return LognormalLength(
            median_tokens=float(fields["median"]),
            sigma=float(fields["sigma"]),
            tokens_max=int(fields.get("max", TOKENS_MAX)),
        )
    except KeyError as error:
        raise ValueError(f"{text!r}: lognormal needs {error.args[0]}=") from error
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no length: {error} "
            "(write 128, or lognormal:median=200,sigma=0.8,max=2048)"
        ) from error


def _field(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"{part!r} is not name=value")
    return name.strip(), value.strip()
