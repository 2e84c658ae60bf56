"""What the capacity experiment promises, and whether it was kept: as core's curves say."""

from __future__ import annotations

from array import array
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from readahead.core.planning.policies.vllm_chunked import VllmChunked
from readahead.core.planning.policy import Choice, EngineView
from readahead.core.reading.curves import ReadingCurve
from readahead.core.reading.timeline import Outcome, Timeline
from readahead.sim.asked import EndedRequest
from readahead.sim.experiments.capacity_cells import (
    MACHINES,
    cluster,
)
from readahead.sim.experiments.capacity_promises import (
    OFFSET_S,
    PACE_TOK_S,
    Kind,
    Promise,
    promise,
)
from readahead.sim.experiments.capacity_rivals import (
    rivals,
)
from readahead.sim.experiments.capacity_sessions import kept_share, recorded
from readahead.sim.experiments.capacity_world import Point, Scores
from readahead.sim.experiments.windows import Window
from readahead.sim.run import zero_load_ttft_s
from readahead.workload.scenarios_slo import SLO_CLASSES
from readahead.workload.session import Segment, Session, Turn

MACHINE = MACHINES["13B-A100"]
SPEC = cluster(MACHINE, rivals(MACHINE)["vllm-chunked"].arms["batch_tokens 2048"])

gaps = st.lists(st.sampled_from((0.0, 0.001, 0.04, 0.05, 0.0525, 0.1, 0.105, 0.2, 0.3, 2.0)),
                min_size=1, max_size=45)  # fmt: skip
firsts = st.floats(0.0, 3.0)


def timeline(times_s: list[float], thinking_tokens: int = 0) -> Timeline:
    return Timeline(
        request_id="r",
        arrival_s=0.0,
        token_times_s=times_s,
        prompt_tokens=10,
        outcome=Outcome.FINISHED,
        ended_s=times_s[-1],
        pace_tok_s=None,
        slo=None,
        thinking_tokens=thinking_tokens,
        has_reader=True,
    )


def turn(**changed: object) -> Turn:
    return replace(Turn(segments=(Segment("s", 100),), output_tokens=20), **changed)  # type: ignore[arg-type]


@given(first_s=firsts, gaps_s=gaps)
def test_the_reading_promise_is_the_reading_curve(first_s: float, gaps_s: list[float]) -> None:
    times_s = (first_s + np.cumsum(gaps_s)).tolist()
    promised = promise(turn(), Kind.READING, zero_load_ttft_s=9.9)
    curve = ReadingCurve(pace_tok_s=PACE_TOK_S, offset_s=OFFSET_S)
    assert promised.is_met(np.array(times_s)) == curve.is_met(timeline(times_s))
    last_due_s = curve.due_times_s(timeline(times_s))[-1]
    assert promised.last_s(len(times_s)) == pytest.approx(last_due_s)


@given(
    first_s=firsts,
    gaps_s=gaps,
    name=st.sampled_from(sorted(SLO_CLASSES)),
    thinking=st.integers(0, 60),
    alone_s=st.floats(0.01, 0.6),
)
def test_a_scenario_s_promise_is_its_staged_curve(
    first_s: float, gaps_s: list[float], name: str, thinking: int, alone_s: float
) -> None:
    times_s = (first_s + np.cumsum(gaps_s)).tolist()
    slo = SLO_CLASSES[name]
    promised = promise(
        turn(slo=slo, thinking_tokens=thinking), Kind.STAGED, zero_load_ttft_s=alone_s
    )
    curve = slo.curve(zero_load_ttft_s=alone_s, thinking_tokens=thinking)
    assert promised.is_met(np.array(times_s)) == curve.is_met(timeline(times_s, thinking))


def test_nobody_is_content_without_a_token() -> None:
    for kind in Kind:
        assert not Promise(kind=kind, first_s=9.0, token_s=1.0).is_met(np.array([]))


def test_what_a_program_reads_is_held_to_its_scenario_s_slo() -> None:
    slo = SLO_CLASSES["tool-loop"]
    found = promise(turn(has_reader=False, slo=slo), Kind.READING, zero_load_ttft_s=0.1)
    assert found == promise(turn(slo=slo), Kind.STAGED, zero_load_ttft_s=0.1)
    with pytest.raises(ValueError, match="no SLO"):
        promise(turn(), Kind.STAGED, zero_load_ttft_s=0.1)


class Spy(VllmChunked):
    """Notes what it is told of each sequence that waits, and how fast thinkers are to be."""

    seen: dict[str, tuple[float, float]] = {}  # noqa: RUF012
    paces: dict[str, set[float]] = {}  # noqa: RUF012

    def choose(self, view: EngineView, now: float) -> Choice:
        for one in view.waiting:
            self.seen[one.request_id] = (one.due_at - one.arrived_at, one.pace_tok_s)
        for one in view.running:
            self.paces.setdefault(one.request_id, set()).add(round(one.pace_tok_s, 6))
        return super().choose(view, now)


@pytest.mark.parametrize("kind", list(Kind))
def test_policies_are_told_the_due_times_of_the_promise(kind: Kind) -> None:
    Spy.seen, Spy.paces = {}, {}
    sessions = recorded("13B-A100", "reasoning", 5).until(
        12.0, rate_req_s=1.0, kept_share=kept_share("13B-A100", "reasoning")
    )
    window = Window(start_s=2.0, last_s=10.0, end_s=12.0)
    point = Point(
        spec=replace(SPEC, policy=lambda _: Spy()),
        told=kind,
        kinds=(kind,),
        window=window,
        seed=0,
        is_patient=True,
    )
    found = point.numbers(sessions, whole=SPEC)
    assert found["unended"] == 0
    assert len(Spy.seen) == len(sessions)
    thought = 0
    for session in sessions:
        due_s, pace_tok_s = Spy.seen[session.session_id]
        if kind is Kind.READING:
            assert due_s == pytest.approx(OFFSET_S + 1 / PACE_TOK_S)
            assert pace_tok_s == PACE_TOK_S
            continue
        slo = session.turns[0].slo
        assert slo is not None
        assert slo.think_tpot_s is not None
        alone_s = zero_load_ttft_s(SPEC, session.prompt_tokens(0))
        assert due_s == pytest.approx(slo.ttft_slowdown * alone_s)
        thinks = session.turns[0].thinking_tokens > 0
        assert pace_tok_s == pytest.approx(1 / (slo.think_tpot_s if thinks else slo.tpot_s))
        thought += len(Spy.paces[session.session_id]) == 2
    assert kind is Kind.READING or thought > len(sessions) // 2


def test_a_session_is_attained_if_each_of_its_requests_is() -> None:
    slo = SLO_CLASSES["tool-loop"]
    turns = (turn(slo=slo, output_tokens=2), turn(slo=slo, output_tokens=2))
    made = recorded("13B-A100", "chat", 5).first(1)[0]
    sessions = [
        replace(made, session_id=name, arrival_s=1.0, turns=turns) for name in ("good", "late")
    ]
    scores = Scores(SPEC, sessions, Window(start_s=0.0, last_s=5.0, end_s=5.0))
    assert not scores.is_over
    for session, second_s in zip(sessions, (1.11, 9.0), strict=True):
        for index, last_s in enumerate((1.11, second_s)):
            scores.ended(_ended(session, index, [1.1, last_s]), turns[index])
    assert scores.is_over
    numbers = scores.numbers(20.0, span_s=5.0)
    assert numbers["requests"] == 2
    assert numbers["attained_staged"] == 0.5
    assert numbers["unended"] == 0


def test_an_answer_that_breaks_off_is_not_attained() -> None:
    session = recorded("13B-A100", "chat", 5).first(1)[0]
    scores = Scores(SPEC, [session], Window(start_s=0.0, last_s=900.0, end_s=900.0))
    times_s = [session.arrival_s + 0.01 * place for place in range(1, 5)]
    broken = replace(_ended(session, 0, times_s), outcome=Outcome.FAILED)
    scores.ended(broken, session.turns[0])
    assert scores.is_over
    assert scores.numbers(900.0, span_s=1.0)["attained_reading"] == 0.0


def _ended(session: Session, index: int, times_s: list[float]) -> EndedRequest:
    return EndedRequest(
        request_id=f"{session.session_id}.{index}",
        session_id=session.session_id,
        scenario="s",
        tenant="t",
        turn=index,
        arrival_s=session.arrival_s,
        ended_s=times_s[-1],
        token_times_s=array("d", times_s),
        prompt_tokens=100,
        pace_tok_s=PACE_TOK_S,
        outcome=Outcome.FINISHED,
        error=None,
        attempts=1,
        slo=session.turns[index].slo,
    )
