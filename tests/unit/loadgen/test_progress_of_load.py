"""What a run looks like while it runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from readahead.loadgen.live import LiveCounts
from readahead.loadgen.live_view import LiveHead, live_line, live_panel, live_state
from readahead.loadgen.progress import PLAIN_S, Progress
from readahead.loadgen.records import Outcome
from readahead.workload.reader import Reader
from readahead.workload.reading_run import ReaderRun

HEAD = LiveHead(title="load on http://127.0.0.1:8000", requests=1200, rate_req_s=4.0)


def counts() -> LiveCounts:
    """Ten requests: seven finished, one failed, two run; of these one reader waits."""
    made = LiveCounts()
    for _ in range(10):
        made.started()
    for outcome in (*([Outcome.FINISHED] * 7), Outcome.FAILED):
        made.ended(outcome)
    for ttft_s in (0.05, 0.1, 0.4):
        made.first_token(ttft_s)
    made.tokens = 500
    for name, tokens in (("reads", 40), ("waits", 2)):
        reader = ReaderRun(Reader(pace_tok_s=5.0), commit_s=1.0)
        reader.deliver(tokens, now=1.1)
        made.reads(name, reader, pace_tok_s=5.0)
    return made


def drawn(width: int, *, is_terminal: bool = True) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=is_terminal, color_system=None)
    console.print(live_panel(HEAD, live_state(counts(), 4.0), width=width))
    return out.getvalue().splitlines()


def test_the_state_is_that_of_the_counts() -> None:
    state = live_state(counts(), 4.0)
    assert (state.sent, state.running) == (10, 2)
    assert state.offered_req_s == 2.5
    assert state.achieved_req_s == 1.75
    assert state.idle_users == 1
    assert state.unread_tokens > 20
    assert state.ttft_s == (0.1, 0.4)
    assert state.lateness_s is None


@pytest.mark.parametrize(("width", "rows"), [(80, 9), (120, 7), (60, 9)])
def test_the_panel_fits(width: int, rows: int) -> None:
    lines = drawn(width)
    assert len(lines) == rows
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines)
    for part in ("smooth goodput", "users idle now", "unread", "offered", "8/1,200"):
        assert part in text


@pytest.mark.parametrize("width", [80, 120])
def test_nothing_is_cut_off(width: int) -> None:
    assert "…" not in "\n".join(drawn(width))


def test_a_line_has_it_all() -> None:
    text = live_line(HEAD, live_state(counts(), 4.0)).plain
    for part in ("sent 10/1200", "running 2", "finished 7", "failed 1", "idle 1", "TTFT p50 100"):
        assert part in text


def test_a_log_gets_a_line_now_and_then() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=80), HEAD) as progress:
        for tenth in range(int(25 * PLAIN_S)):
            progress.refresh(counts(), tenth / 10)
    assert len(out.getvalue().splitlines()) == 2


def test_before_anything_was_sent() -> None:
    state = live_state(LiveCounts(), 0.0)
    assert state.smooth_goodput_tok_s == 0
    assert live_line(HEAD, state).plain
