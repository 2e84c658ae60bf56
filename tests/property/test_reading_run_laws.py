"""ReaderRun against a reader who goes token by token, and against core's clock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.reading.clock import ReadingClock
from readahead.workload.reader import Reader
from readahead.workload.reading_run import Leaving, ReaderRun

NEAR_S = 1e-6


@dataclass(kw_only=True)
class NaiveReader:
    """Keeps when each token is read; knows nothing in closed form."""

    reader: Reader
    commit_s: float
    starts_s: list[float] = field(default_factory=list)
    idle_s: float = 0.0

    def pace(self, index: int) -> float:
        pace: float = self.reader.pace_tok_s * (1 + self.reader.drift_per_100_tokens) ** (
            index / 100
        )
        skims = self.reader.skims_from_tokens
        return pace * self.reader.skim_factor if skims is not None and index >= skims else pace

    @property
    def wanted_s(self) -> float:
        """When he wants the next token."""
        if not self.starts_s:
            return self.commit_s + 1 / self.pace(0)
        return self.starts_s[-1] + 1 / self.pace(len(self.starts_s) - 1)

    def deliver(self, tokens: int, now: float) -> None:
        for _ in range(tokens):
            self.idle_s += max(0.0, now - self.wanted_s)
            self.starts_s.append(max(now, self.wanted_s))

    def read_tokens(self, now: float) -> int:
        return sum(start_s <= now + NEAR_S / 10 for start_s in self.starts_s)


paces = st.floats(0.5, 50)
readers = st.builds(
    Reader,
    pace_tok_s=paces,
    drift_per_100_tokens=st.one_of(st.just(0.0), st.floats(-0.4, 0.4)),
    skims_from_tokens=st.one_of(st.none(), st.integers(0, 60)),
    skim_factor=st.floats(1, 8),
    leaves_after_tokens=st.one_of(st.none(), st.integers(1, 80)),
    patience_s=st.one_of(st.none(), st.floats(0.1, 20)),
)
flows = st.lists(st.tuples(st.floats(0.001, 8), st.integers(1, 20)), max_size=25)


@given(reader=readers, commit_s=st.floats(0, 100), flow=flows)
def test_it_reads_as_the_naive_reader_does(
    reader: Reader, commit_s: float, flow: list[tuple[float, int]]
) -> None:
    """Position, waiting and the moment at which he has read enough, at every delivery."""
    run = ReaderRun(reader, commit_s=commit_s)
    naive = NaiveReader(reader=reader, commit_s=commit_s)
    now = commit_s
    for gap_s, tokens in flow:
        now += gap_s
        before = naive.read_tokens(now - NEAR_S), naive.read_tokens(now + NEAR_S)
        assert before[0] <= run.read_tokens(now) <= before[1]
        waits_s = max(0.0, now - naive.wanted_s)
        assert run.idle_s(now) == pytest.approx(naive.idle_s + waits_s, abs=NEAR_S)
        naive.deliver(tokens, now)
        assert run.deliver(tokens, now=now) == pytest.approx(waits_s, abs=NEAR_S)
        assert run.slack_s(now) == pytest.approx(naive.wanted_s - now, abs=NEAR_S)
        assert run.unread_tokens(now) + run.read_tokens(now) == run.delivered
        if reader.patience_s is not None:
            at_s = min(naive.wanted_s + reader.patience_s, run.read_enough_s)
            assert run.leaves_at_s == pytest.approx(at_s, abs=NEAR_S)
    wanted = reader.leaves_after_tokens
    if wanted is None or len(naive.starts_s) < wanted:
        assert run.read_enough_s == math.inf
    else:
        assert run.read_enough_s == pytest.approx(naive.starts_s[wanted - 1], abs=NEAR_S)
    assert run.finished_reading_s == math.inf
    run.end(now=now)
    end_s = max(now, naive.wanted_s) if naive.starts_s else now
    assert run.finished_reading_s == pytest.approx(end_s, abs=NEAR_S)
    assert run.idle_s(now + 100) == pytest.approx(naive.idle_s, abs=NEAR_S)


@given(pace_tok_s=paces, commit_s=st.floats(0, 100), flow=flows)
def test_a_steady_reader_is_cores_clock(
    pace_tok_s: float, commit_s: float, flow: list[tuple[float, int]]
) -> None:
    """One law for the router's clock, for the simulator's readers and for the generator's."""
    run = ReaderRun(Reader(pace_tok_s=pace_tok_s), commit_s=commit_s)
    clock = ReadingClock(pace_tok_s=pace_tok_s, commit_s=commit_s)
    now = commit_s
    for gap_s, tokens in flow:
        now += gap_s
        assert run.slack_s(now) == pytest.approx(clock.slack_s(now), abs=NEAR_S)
        assert run.idle_s(now) == pytest.approx(clock.idle_s(now), abs=NEAR_S)
        if abs(clock.slack_s(now)) > NEAR_S:
            assert run.is_idle(now) == clock.is_idle(now)
        assert abs(run.read_tokens(now) - clock.read_tokens(now)) <= 1
        stall_s = clock.deliver(tokens, now=now)
        assert run.deliver(tokens, now=now) == pytest.approx(stall_s, abs=NEAR_S)


@given(every_s=st.floats(0.05, 5), thinking=st.integers(0, 30), flow=flows, late_s=st.floats(0, 12))
def test_reports_ascend_and_end(
    every_s: float, thinking: int, flow: list[tuple[float, int]], late_s: float
) -> None:
    """No two are closer than asked for, none goes back, and the last one says all."""
    run = ReaderRun(
        Reader(pace_tok_s=5, report_every_s=every_s), commit_s=0, thinking_tokens=thinking
    )
    now, said = 0.0, [(0.0, 0)]
    for gap_s, tokens in flow:
        while run.next_report_s <= now + gap_s:
            at_s = run.next_report_s
            report = run.report(at_s)
            assert run.next_report_s > at_s
            if report is not None:
                said.append((at_s, report))
                assert report <= run.delivered
        now += gap_s
        run.deliver(tokens, now=now)
    run.end(now=now)
    now = run.finished_reading_s + late_s
    while run.next_report_s < math.inf:
        now = max(now, run.next_report_s)
        report = run.report(now)
        if report is not None:
            said.append((now, report))
    assert said[-1][1] == run.delivered == sum(tokens for _, tokens in flow)
    assert run.reports == len(said) - 1
    for (early_s, few), (later_s, more) in pairwise(said):
        assert few < more
        assert later_s > early_s


@given(patience_s=st.floats(0.5, 5), gaps_s=st.lists(st.floats(0.01, 4), min_size=1, max_size=30))
def test_thinking_is_waited_for_but_patiently(patience_s: float, gaps_s: list[float]) -> None:
    """Idle counts from when text was due; patience counts from the last sign of life."""
    run = ReaderRun(
        Reader(pace_tok_s=5, patience_s=patience_s), commit_s=0, thinking_tokens=len(gaps_s)
    )
    now = 0.0
    for gap_s in gaps_s:
        now += gap_s
        run.deliver(1, now=now)
        assert run.leaves_at_s == pytest.approx(max(now, 0.2) + patience_s)
        assert run.leaves_because is Leaving.IMPATIENT
    assert run.read_tokens(now + 100) == 0
    assert run.idle_s(now) == pytest.approx(max(0.0, now - 0.2))
