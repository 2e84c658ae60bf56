"""Laws of the load generator's numbers."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.statistics import quantile, quantiles
from readahead.loadgen.timeline import Frame, Timeline, token_counts

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


FRAMES = st.lists(
    st.builds(Frame, at_s=st.just(0.0), tokens=st.none(), characters=st.integers(0, 50)),
    max_size=50,
)


@given(FRAMES, st.integers(0, 500))
def test_spread_tokens_add_up(frames: list[Frame], output_tokens: int) -> None:
    """The counts of frames whose content is not told sum to the total, and none is negative."""
    counts, is_estimated = token_counts(frames, output_tokens=output_tokens)
    assert len(counts) == len(frames)
    assert sum(counts) == (output_tokens if frames else 0)
    has_text = any(frame.characters for frame in frames)
    least = 1 if has_text and output_tokens >= len(frames) else 0
    assert all(count >= least for count in counts)
    assert is_estimated or not frames or len(frames) == output_tokens


@given(st.lists(st.integers(1, 5), max_size=50), st.integers(0, 500))
def test_told_counts_are_taken_as_they_are(tokens: list[int], output_tokens: int) -> None:
    """Where the server says what a frame holds, nothing is spread."""
    clock = iter(range(len(tokens) + 1))
    live = LiveCounts()
    timeline = Timeline(arrival_s=0.0, clock=lambda: float(next(clock)), counts=live)
    for count in tokens:
        timeline.mark(tokens=count, characters=1)
    assert token_counts(timeline.frames, output_tokens=output_tokens) == (
        tokens,
        False,
    )
    assert live.tokens == sum(tokens)
    assert math.fsum(live.ttft_s) == 0.0
