"""Laws of the splitting of server-sent events."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from readahead.loadgen.sse import SseSplitter

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
EVENTS = st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=6)


@given(
    EVENTS,
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.lists(st.integers(0, 400), max_size=30),
)
def test_events_survive_any_cut(
    events: list[list[str]], line_end: str, has_comments: bool, cuts: list[int]
) -> None:
    """Wherever the bytes are cut, also within a character or a line end, the data are the same."""
    comment = f": ping{line_end}event: message{line_end}" if has_comments else ""
    stream = "".join(
        comment + "".join(f"data: {line}{line_end}" for line in lines) + line_end
        for lines in events
    ).encode()
    splitter = SseSplitter()
    borders = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    seen: list[str] = []
    for start, end in itertools.pairwise(borders):
        seen += splitter.feed(stream[start:end])
    assert seen == ["\n".join(lines) for lines in events]


@given(EVENTS, st.sampled_from(["\n", "\r\n", "\r"]))
def test_an_event_is_given_with_the_byte_that_ends_it(
    events: list[list[str]], line_end: str
) -> None:
    """No event waits for the next one: its time of receipt is its own."""
    splitter = SseSplitter()
    for lines in events:
        body = "".join(f"data: {line}{line_end}" for line in lines) + line_end[0]
        assert splitter.feed(body.encode()) == ["\n".join(lines)]
        assert splitter.feed(line_end[1:].encode()) == []
