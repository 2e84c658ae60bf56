"""Two-level designs: which factors are on in which run, and what the runs say of each factor.

A factor beyond the first few is on where a product of others says so, which makes all columns
orthogonal in few runs. Products of an odd number of columns are never constant then, so that no
factor is mistaken for an interaction of two (resolution IV).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from readahead.sim.experiments.experiment import Row
from readahead.sim.experiments.intervals import Mean, mean

FULL_MAX = 4
"""Up to so many factors all 2^k combinations are run."""
Pair = tuple[str, str]
"""A two-way interaction."""


def generators(factors: int) -> list[int]:
    """For each factor the base factors whose product it is, as bits; base factors come first.

    So many runs as 2 to the number of base factors. With one factor beyond them it is the product
    of all; with more, products of odd numbers of them.

    Raises:
        ValueError: there is no factor.
    """
    if factors < 1:
        raise ValueError(f"factors must be at least 1, is {factors}")
    if factors <= FULL_MAX:
        return [1 << place for place in range(factors)]
    base = FULL_MAX
    while 1 << (base - 1) < factors:
        base += 1
    singles = [1 << place for place in range(base)]
    if factors == base + 1:
        return [*singles, (1 << base) - 1]
    products = [bits for bits in range(1 << base) if bits.bit_count() % 2 and bits.bit_count() > 1]
    return [*singles, *sorted(products, key=lambda bits: (bits.bit_count(), bits))][:factors]


def design(names: Sequence[str]) -> list[frozenset[str]]:
    """The runs, each as those factors that are off; the first has all on."""
    bits = generators(len(names))
    runs = 1 << max(bits).bit_length()
    return [
        frozenset(
            name for name, own in zip(names, bits, strict=True) if (own & off).bit_count() % 2
        )
        for off in range(runs)
    ]


def resolution(names: Sequence[str]) -> int | None:
    """Of the design: the length of the shortest product of factors that is constant; None where
    all combinations are run."""
    bits = generators(len(names))
    for length in range(1, len(bits) + 1):
        for chosen in combinations(bits, length):
            whole = 0
            for own in chosen:
                whole ^= own
            if not whole:
                return length
    return None


def confounded(names: Sequence[str]) -> list[tuple[Pair, ...]]:
    """Two-way interactions in groups of those that no run tells apart."""
    bits = dict(zip(names, generators(len(names)), strict=True))
    groups: dict[int, list[Pair]] = {}
    for one, other in combinations(names, 2):
        groups.setdefault(bits[one] ^ bits[other], []).append((one, other))
    return [tuple(group) for group in groups.values()]


def column(name: str) -> str:
    """Of a row: whether the factor is on."""
    return f"on_{name}"


def effect(rows: Iterable[Row], term: Sequence[str], of: Callable[[Row], float]) -> Mean:
    """What turning a factor on adds, the mean of all settings of the others, over seeds; of
    several factors, half of what the one adds more where the other is on.

    Rows are those of a whole design on each seed.
    """
    signed: dict[object, list[float]] = {}
    for row in rows:
        sign = math.prod(1 if row[column(name)] else -1 for name in term)
        signed.setdefault(row["seed"], []).append(sign * of(row))
    return mean(2 * math.fsum(values) / len(values) for values in signed.values())
