"""The bursts: what is counted through a spike, and whose verdicts are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from readahead.core.planning.knobs import knobs_of
from readahead.core.planning.policies.readahead import Readahead
from readahead.core.planning.policy import EngineLimits, EngineView
from readahead.core.planning.readers import readers_of
from readahead.core.planning.sequence import Sequence
from readahead.core.reading.curves import EPSILON_S, SLO_TOLERANCE
from readahead.core.request import RequestId
from readahead.sim.experiments.bursts import EXPERIMENT
from readahead.sim.experiments.bursts_cells import (
    LOADS,
    MACHINE,
    POLICIES,
    SIZES,
    busiest,
    code_trace,
    spiked,
    traced,
)
from readahead.sim.experiments.bursts_world import (
    BROKEN,
    Spike,
    Telling,
    in_time_again_s,
    queue_back_s,
    stretched,
)
from readahead.sim.experiments.capacity_cells import MACHINES
from readahead.sim.experiments.capacity_promises import Kind, Promise
from readahead.sim.experiments.experiment import Cell, Row, Scope, Verdict
from readahead.sim.experiments.intervals import number, where
from readahead.sim.experiments.runner import run_cells

gaps = st.lists(
    st.sampled_from((0.0, 0.04, 0.05, 0.0524, 0.1, 0.1045, 0.2, 0.3, 2.0)), min_size=1, max_size=45
)
firsts = st.one_of(st.floats(0.0, 3.0), st.sampled_from((0.5, 0.51, 0.52)))
TINY = SIZES[Scope.TINY]


@given(first_s=firsts, gaps_s=gaps, thinking=st.integers(0, 20))
@example(first_s=0.52, gaps_s=[0.1045] * 10, thinking=0)
def test_stretched_beyond_its_bound_is_missed(
    first_s: float, gaps_s: list[float], thinking: int
) -> None:
    times_s = first_s + np.cumsum([0.0, *gaps_s])
    reading = Promise(kind=Kind.READING, first_s=1.2, token_s=0.2)
    staged = Promise(
        kind=Kind.STAGED,
        first_s=0.5,
        token_s=0.1,
        thinking_tokens=thinking,
        thinking_token_s=0.05,
    )
    for promised, most in ((reading, 1.0), (staged, 1.0 + SLO_TOLERANCE)):
        times = stretched(promised, times_s)
        if abs(times - most) > 10 * EPSILON_S:
            assert promised.is_met(times_s) == (times < most)


def test_no_token_is_the_worst_of_all() -> None:
    promised = Promise(kind=Kind.READING, first_s=1.2, token_s=0.2)
    assert stretched(promised, np.array([])) == BROKEN
    assert not promised.is_met(np.array([]))


SPIKE = Spike(20.0, 30.0)


def queue(*waits: tuple[float, float, int]) -> list[tuple[float, int]]:
    """Samples each half second: from, to, how many wait."""
    return [
        (n / 2, next(w for a, b, w in waits if a <= n / 2 < b))
        for n in range(int(2 * waits[-1][1]))
    ]


def test_the_queue_is_back_once_it_stays_where_it_was() -> None:
    assert queue_back_s(queue((0, 20, 3), (20, 42, 50), (42, 60, 3)), SPIKE) == 12.0
    assert queue_back_s(queue((0, 20, 3), (20, 25, 9), (25, 60, 2)), SPIKE) == 0.0
    late = queue((0, 20, 3), (20, 42, 50), (42, 44, 3), (44, 50, 4), (50, 60, 1))
    assert queue_back_s(late, SPIKE) == 20.0
    assert queue_back_s(queue((0, 20, 3), (20, 60, 50)), SPIKE) is None
    assert queue_back_s(queue((0, 20, 3), (20, 58, 50), (58, 60, 0)), SPIKE) is None


def test_who_comes_is_in_time_again_once_nine_of_ten_are() -> None:
    def arrivals(bad_until_s: float) -> list[tuple[float, bool]]:
        return [(at_s / 4, not 22.0 <= at_s / 4 < bad_until_s) for at_s in range(400)]

    assert in_time_again_s(arrivals(30.0), SPIKE, last_s=100.0) == 0.0
    assert in_time_again_s(arrivals(50.0), SPIKE, last_s=100.0) == 19.0
    assert in_time_again_s(arrivals(100.0), SPIKE, last_s=100.0) is None


@st.composite
def views(draw: st.DrawFn) -> EngineView:
    """Readers and prompts of an engine, at time 0."""
    profile = MACHINES[MACHINE].found
    limits = EngineLimits(
        kv_blocks=10_000,
        block_tokens=16,
        requests_max=256,
        batch_tokens_max=8192,
        latency=profile.latency,
    )

    def sequence(name: str, tokens: int, due_s: float) -> Sequence:
        return Sequence(
            request_id=RequestId(name),
            prompt_tokens=tokens,
            output_tokens_max=100,
            arrived_at=due_s - 1.2,
            reads_until=due_s,
        )

    sizes, dues = st.integers(1, 6000), st.floats(-2.0, 3.0)
    waiting = [sequence(f"w{n}", draw(sizes), draw(dues)) for n in range(draw(st.integers(1, 8)))]
    running = []
    for n in range(draw(st.integers(0, 6))):
        one = sequence(f"r{n}", draw(sizes), draw(dues))
        one.generated = draw(st.integers(1, 20))
        one.computed = one.prompt_tokens + one.generated - 1
        running.append(one)
    return EngineView(limits=limits, blocks_free=8000, running=running, waiting=waiting, pulling=0)


@given(view=views())
def test_verdicts_are_those_of_the_policy(view: EngineView) -> None:
    """It chooses the same, and puts whom it keeps first, in the order of due times."""
    policy = Telling.like(Readahead())
    assert policy.choose(view, 0.0).entries == Readahead().choose(view, 0.0).entries
    if not policy.verdicts:
        return  # nothing was to be ordered
    assert set(policy.verdicts) >= set(view.waiting)
    readers = readers_of(view, 0.0, rich_s=policy.rich_s)
    order, is_aged = policy._order(view, readers, list(view.waiting), 0.0)
    kept = [one for one in order if policy.verdicts[one]]
    assert not is_aged
    assert order[: len(kept)] == kept
    assert [one.due_at for one in kept] == sorted(one.due_at for one in kept)


def test_a_policy_that_tells_has_the_same_knobs() -> None:
    turned = Readahead(rich_s=4.0, sit_out=False)
    told = Telling.like(turned)
    assert told.name == turned.name
    for knob in knobs_of(Readahead):
        assert getattr(told, knob.name) == getattr(turned, knob.name)


def cell(policy: str, seed: int = 3) -> Cell:
    about = {"load": "code-spike", "policy": policy, "told": "reading", "scope": "full"}
    return Cell(parameters=about, seed=seed)


def test_a_spike_is_a_spike_and_the_same_for_all() -> None:
    size, load = SIZES[Scope.FULL], LOADS["code-spike"]
    one, other = (list(spiked(load, cell(policy), size)) for policy in ("vllm", "readahead"))
    assert one == other
    times_s = [session.arrival_s for session in one]
    assert times_s == sorted(times_s)
    begin_s, end_s = size.spike_s
    inside = sum(begin_s <= at_s < end_s for at_s in times_s) / (end_s - begin_s)
    outside = sum(at_s < begin_s for at_s in times_s) / begin_s
    assert inside > 2 * outside


def test_the_busiest_stretch_is_where_most_prompt_tokens_come() -> None:
    size = SIZES[Scope.FULL]
    sessions = list(spiked(LOADS["code-spike"], cell("vllm"), size))
    found = busiest(sessions, size)
    assert found.end_s - found.begin_s == size.busiest_s
    begin_s, end_s = size.spike_s
    assert begin_s - 2 <= found.begin_s <= end_s - size.busiest_s + 2


def test_slices_of_the_trace_fit_and_do_not_overlap() -> None:
    if code_trace() is None:
        pytest.skip("needs the code trace of the data folder; READAHEAD_DATA says where it is")
    size, load = SIZES[Scope.FULL], LOADS["azure-code"]
    slices = [list(traced(load, seed, size)) for seed in size.seeds]
    lengths = [
        tuple((one.prompt_tokens(0), one.turns[0].output_tokens) for one in each[:40])
        for each in slices
    ]
    assert len(set(lengths)) == len(slices)
    for each in slices:
        times_s = [one.arrival_s for one in each]
        assert times_s == sorted(times_s)
        assert times_s[-1] <= size.window.end_s
        assert times_s[-1] > size.window.last_s


def test_without_the_trace_its_slices_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("READAHEAD_DATA", str(tmp_path))
    cells = EXPERIMENT.cells(Scope.FULL)
    assert {one.parameters["load"] for one in cells} == {"code-spike", "chat-spike"}
    with pytest.raises(FileNotFoundError, match="READAHEAD_DATA"):
        list(traced(LOADS["azure-code"], 0, TINY))


def test_a_tiny_spike_is_lived_through() -> None:
    rows = run_cells(EXPERIMENT, EXPERIMENT.cells(Scope.TINY), jobs=1, done=lambda: None)
    assert len(rows) == len(POLICIES) * len(Kind) * len(TINY.seeds)
    for seed in TINY.seeds:
        assert len({row["requests"] for row in where(rows, seed=seed)}) == 1
    for row in rows:
        assert row["unended"] == 0
        assert row["declined"] == row["declined_finished"]
        if row["policy"] in ("vllm", "sarathi"):
            assert row["first_share"] == 1
    planned = [row for row in rows if row["policy"] in ("slos-serve", "readahead")]
    assert any(number(row, "first_share") < 1 for row in planned)
    findings = EXPERIMENT.conclude(rows)
    assert any("Azure" in note for note in findings.notes)
    assert [len(table.rows) for table in findings.tables] == [2 * len(POLICIES)]


def made_up(p99: float, back_s: float | None, finished: int = 5) -> list[Row]:
    return [
        {
            "load": "code-spike", "policy": policy, "kind": kind.value, "seed": seed,
            "first_share": 0.7, "first_p99": p99 if policy == "readahead" else 1.0,
            "last_share": 0.6, "last_p99": 1.0,
            "spike_attained": 0.7, "spike_p99": 9.0, "attained": 0.9, "declined": 5,
            "declined_finished": finished, "declined_wait_max_s": 30.0, "unended": 0,
            "queue_most": 40, "seen_s": 120.0, "f1_tok_s": 10.0, "idle_p99_s": 20.0,
            "queue_back_s": back_s if policy == "readahead" else 9.0, "in_time_again_s": 4.0,
        }
        for policy in POLICIES
        for kind in Kind
        for seed in range(3)
    ]  # fmt: skip


def test_verdicts_follow_from_the_rows() -> None:
    def found(rows: list[Row]) -> list[Verdict]:
        return [claim.verdict for claim in EXPERIMENT.conclude(rows).claims]

    good = found(made_up(1.05, 9.5))
    assert good == [Verdict.REPRODUCED] * 8
    assert found(made_up(1.2, 9.5))[2] is Verdict.NOT
    assert found(made_up(1.05, 9.5, finished=4))[4] is Verdict.NOT
    assert found(made_up(1.05, 30.0))[6] is Verdict.NOT


def test_an_end_that_was_not_seen_is_no_quick_one() -> None:
    findings = EXPERIMENT.conclude(made_up(1.05, None))
    assert findings.claims[6].verdict is Verdict.NOT
    assert "≥ 120" in findings.claims[6].ours
