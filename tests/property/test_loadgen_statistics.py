"""Laws of the load generator's numbers."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.statistics import quantile, quantiles
from readahead.loadgen.timeline import UNKNOWN, Timeline, token_counts

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_an_observation_that_its_share_does_not_exceed(
    values: list[float], share: float
) -> None:
    """And none smaller would do: the definition, checked by counting."""
    value = quantile(sorted(values), share)
    assert value in values
    assert sum(other <= value for other in values) >= share * len(values)
    smaller = [other for other in values if other < value]
    assert not smaller or len(smaller) < share * len(values)


@given(VALUES, st.integers(0, 2**32))
def test_quantiles_do_not_depend_on_order(values: list[float], seed: int) -> None:
    """The same observations give the same numbers."""
    shuffled = list(values)
    random.Random(seed).shuffle(shuffled)
    assert quantiles(values) == quantiles(shuffled)


CHARACTERS = st.lists(st.integers(0, 50), max_size=50)


@given(CHARACTERS, st.integers(0, 500))
def test_spread_tokens_add_up(characters: list[int], output_tokens: int) -> None:
    """The counts of frames whose content is not told sum to the total, and none is negative."""
    unknown = [UNKNOWN] * len(characters)
    counts, is_estimated = token_counts(unknown, characters, output_tokens=output_tokens)
    assert len(counts) == len(characters)
    assert sum(counts) == (output_tokens if characters else 0)
    least = 1 if any(characters) and output_tokens >= len(characters) else 0
    assert all(count >= least for count in counts)
    assert is_estimated or not characters or len(characters) == output_tokens


@given(st.lists(st.integers(0, 5), max_size=50), st.integers(0, 500))
def test_told_counts_are_taken_as_they_are(tokens: list[int], output_tokens: int) -> None:
    """Where the server says what a frame holds, nothing is spread; each frame keeps its stamp."""
    live = LiveCounts()
    told: list[tuple[int, float]] = []
    timeline = Timeline(
        arrival_s=2.0, start_s=100.0, counts=live, on_tokens=lambda *one: told.append(one)
    )
    for index, count in enumerate(tokens):
        timeline.mark(102.5 + index, tokens=count, text="x")
    counts, is_estimated = token_counts(
        timeline.tokens, timeline.characters, output_tokens=output_tokens
    )
    assert (list(counts), is_estimated) == (tokens, False)
    assert list(timeline.times_s) == [2.5 + index for index in range(len(tokens))]
    assert told == list(zip(tokens, timeline.times_s, strict=True))
    assert live.tokens == sum(tokens)
    assert list(live.ttft_s) == ([0.5] if tokens else [])
