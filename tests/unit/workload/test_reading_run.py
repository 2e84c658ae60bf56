"""ReaderRun, case by case."""

from __future__ import annotations

import math

import pytest

from readahead.workload.reader import Reader
from readahead.workload.reading_run import Leaving, ReaderRun


def run_of(commit_s: float = 0.0, **habits: float | int | None) -> ReaderRun:
    reader = Reader(pace_tok_s=2.0, **habits)  # type: ignore[arg-type]
    return ReaderRun(reader, commit_s=commit_s)


def test_a_steady_reader() -> None:
    """Two tokens a second; the first is due half a second after the commitment."""
    run = run_of(10.0)
    assert (run.slack_s(10.0), run.is_idle(10.6), run.idle_s(10.5)) == (0.5, True, 0.0)
    assert run.deliver(4, now=11.5) == pytest.approx(1.0)
    assert [run.read_tokens(at_s) for at_s in (11.5, 11.9, 12.0, 13.0, 99)] == [1, 1, 2, 4, 4]
    run.end(now=11.6)
    assert run.finished_reading_s == pytest.approx(13.5)
    assert run.stalls == 1
    assert run.idle_s(50) == pytest.approx(1.0)


def test_skimming_and_drift() -> None:
    """From token 2 on at four times the pace; 100 tokens later he reads twice as fast."""
    run = run_of(skims_from_tokens=2)
    run.deliver(10, now=0.5)
    assert run.slack_s(0.5) == pytest.approx(2 / 2 + 8 / 8)
    assert (run.pace_tok_s(0.5), run.pace_tok_s(2.4)) == (2.0, 8.0)
    drifting = run_of(drift_per_100_tokens=1.0)
    drifting.deliver(101, now=0.5)
    assert drifting.pace_tok_s(1e6) == pytest.approx(4.0)


def test_he_leaves_for_want_of_text() -> None:
    """Each delivery starts his patience anew, from when he runs out of text."""
    run = run_of(patience_s=3.0)
    assert run.leaves_at_s == 3.5
    run.deliver(2, now=3.0)
    assert run.leaves_at_s == pytest.approx(3.0 + 1.0 + 3.0)
    assert run.leaves_because is Leaving.IMPATIENT
    run.end(now=4.0)
    assert run.leaves_at_s == math.inf


def test_he_leaves_when_he_has_read_enough() -> None:
    """When he comes to that token, known as soon as it has come."""
    run = run_of(leaves_after_tokens=3, patience_s=30.0)
    run.deliver(2, now=0.5)
    causes = [run.leaves_because]
    run.deliver(2, now=0.6)
    assert run.leaves_at_s == pytest.approx(1.5)
    assert [*causes, run.leaves_because] == [Leaving.IMPATIENT, Leaving.READ_ENOUGH]
    assert run.read_tokens(run.leaves_at_s) == 3


def test_reports() -> None:
    """At their times, only of news, thinking counted; none after the last word."""
    reader = Reader(pace_tok_s=2.0, report_every_s=1.0)
    run = ReaderRun(reader, commit_s=0.0, thinking_tokens=5)
    assert (run.next_report_s, run.report(0.9), run.report(1.0)) == (1.0, None, None)
    run.deliver(7, now=1.5)
    assert (run.next_report_s, run.report(2.0)) == (2.0, 5 + 2)
    assert run.report(3.0) is None
    run.deliver(1, now=3.5)
    run.end(now=3.5)
    assert (run.report(6.2), run.next_report_s, run.reports) == (8, math.inf, 2)


def test_an_answer_that_broke_off() -> None:
    """Its reader has waited until then; of a whole answer nobody waits for more."""
    for is_complete, idle_s in ((True, 0.0), (False, 2.0)):
        run = run_of()
        run.deliver(1, now=0.5)
        run.end(now=3.0, is_complete=is_complete)
        run.end(now=9.0, is_complete=False)
        assert run.idle_s(20.0) == pytest.approx(idle_s)
    empty = run_of()
    empty.end(now=4.0, is_complete=False)
    assert (empty.finished_reading_s, empty.idle_s(9)) == (4.0, 3.5)


@pytest.mark.parametrize(
    ("habits", "complaint"),
    [
        ({"drift_per_100_tokens": -1.0}, "drift_per_100_tokens must be > -1"),
        ({"patience_s": 0.0}, "patience_s must be finite"),
        ({"report_every_s": math.nan}, "report_every_s must be finite"),
        ({"skim_factor": math.inf}, "skim_factor must be finite"),
    ],
)
def test_a_reader_that_cannot_be(habits: dict[str, float], complaint: str) -> None:
    """Is refused by name."""
    with pytest.raises(ValueError, match=complaint):
        run_of(**habits)


def test_one_who_slows_down_for_ever() -> None:
    """Comes to stand still, without an overflow."""
    run = run_of(drift_per_100_tokens=-0.9)
    run.deliver(1_000_000, now=0.5)
    assert run.read_tokens(1e6) < 1000
