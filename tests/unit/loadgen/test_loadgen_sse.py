"""Server-sent events by example."""

from __future__ import annotations

import pytest

from readahead.loadgen.sse import EVENT_BYTES_MAX, SseError, SseSplitter


def test_what_the_standard_says() -> None:
    """One space after the colon goes; comments, other fields, events without data are dropped."""
    stream = b"\xef\xbb\xbf: hello\nevent: x\n\ndata:  two\ndata:one\nid: 3\n\ndata\n\nretry: 9\n\n"
    assert SseSplitter().feed(stream) == [" two\none", ""]


def test_an_unfinished_event_is_not_given() -> None:
    """A stream that breaks off in an event has not sent it."""
    splitter = SseSplitter()
    assert splitter.feed(b"data: half") == []
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"\n") == ["half"]


def test_a_stream_of_another_kind_is_refused() -> None:
    """Endless lines, endless events and bytes that are no text."""
    with pytest.raises(SseError, match="larger"):
        SseSplitter().feed(b"x" * (EVENT_BYTES_MAX + 1))
    with pytest.raises(SseError, match="larger"):
        SseSplitter().feed(20 * (b"data: " + b"x" * (EVENT_BYTES_MAX // 10) + b"\n"))
    with pytest.raises(SseError, match="UTF-8"):
        SseSplitter().feed(b"data: \xff\n\n")
