"""Sessions have the structure of their scenario."""

from __future__ import annotations

import random
import statistics
from collections.abc import Mapping

import pytest

from readahead.workload.scenarios import Scenario
from readahead.workload.scenarios_registry import SCENARIOS, make_scenario
from readahead.workload.session import Pause, Session

SMALL: Mapping[str, object] = {
    "length_scale": 0.1,
    "prompt_tokens_max": 500,
    "output_tokens_max": 120,
}


def _sessions(scenario: Scenario, count: int = 400, tenant: str = "acme") -> list[Session]:
    return [
        scenario.make_session(
            session_id=f"s{index}",
            arrival_s=float(index),
            tenant=tenant,
            user=f"u{index}",
            rng=random.Random(f"7/{index}"),
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("parameters", [{}, SMALL], ids=["as is", "small"])
def test_every_session_is_well_formed(name: str, parameters: Mapping[str, object]) -> None:
    """First turns come at the arrival with no context; all have an SLO; the last has a reader."""
    for session in _sessions(make_scenario(name, parameters), 200):
        first, *later = session.turns
        assert not first.carries_context
        assert first.pause_s == 0
        assert session.turns[-1].has_reader
        for turn in session.turns:
            assert turn.slo is not None
            assert turn.own_tokens >= 1
            assert all(segment.tokens >= 1 for segment in turn.segments)
            assert 0 <= turn.thinking_tokens < turn.output_tokens
        for turn in later:
            assert turn.carries_context
            assert turn.pause_s > 0
        own = [segment.key for turn in session.turns for segment in turn.segments]
        assert len(set(own)) == len(own)


@pytest.mark.parametrize("name", SCENARIOS)
def test_caps_hold_for_whole_conversations(name: str) -> None:
    """So that each runs on a model of a small context; and the label says so."""
    parameters: dict[str, object] = dict(SMALL)
    if name == "mixed":
        parameters["parts"] = {"chatbot": {"turns_mean": 5}, "tool-calling": 1}
    elif name in {"chatbot", "coder", "summarization"}:
        parameters["turns_mean"] = 5
    for session in _sessions(make_scenario(name, parameters)):
        for index, turn in enumerate(session.turns):
            assert session.prompt_tokens(index) <= 500
            assert turn.output_tokens <= 120
        assert session.scenario.endswith("(lengths x0.1, prompt <= 500, output <= 120)")


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_seed_gives_the_same_sessions(name: str) -> None:
    """And another seed others."""
    assert _sessions(make_scenario(name), 50) == _sessions(make_scenario(name), 50)
    first, second = _sessions(make_scenario(name), 2)
    assert first.turns != second.turns


def test_chat_is_one_request_unless_asked_for_more() -> None:
    """Rows of the traces are requests; with `turns_mean` conversations have that many."""
    assert {len(session.turns) for session in _sessions(make_scenario("chatbot"))} == {1}
    talks = _sessions(make_scenario("chatbot", {"turns_mean": 3, "turns_max": 50}), 1000)
    assert statistics.mean(len(talk.turns) for talk in talks) == pytest.approx(3, rel=0.1)
    pauses = [turn.pause_s for talk in talks for turn in talk.turns[1:]]
    assert statistics.median(pauses) == pytest.approx(10, rel=0.15)
    assert {turn.pause_from for talk in talks for turn in talk.turns} == {Pause.READ}


def test_a_system_prompt_is_shared_by_a_tenant_and_part_of_the_length() -> None:
    """Two tenants have different ones; prompts that are too short go without."""
    plain = make_scenario("chatbot")
    shared = make_scenario("chatbot", {"shared_prefix_tokens": 300})
    ours, theirs = _sessions(shared), _sessions(shared, tenant="other")
    assert [one.prompt_tokens(0) for one in ours] == [
        one.prompt_tokens(0) for one in _sessions(plain)
    ]
    beginnings = {one.turns[0].segments[0] for one in ours if len(one.turns[0].segments) == 2}
    assert len(beginnings) == 1
    assert beginnings.pop().tokens == 300
    assert all(one.prompt_tokens(0) <= 300 for one in ours if len(one.turns[0].segments) == 1)
    keys = [
        {segment.key for one in group for segment in one.turns[0].segments[:-1]}
        for group in (ours, theirs)
    ]
    assert not keys[0] & keys[1]


def test_nobody_reads_the_rounds_of_a_tool_loop() -> None:
    """The last turn is the answer; tools run between, and each sees what came before."""
    sessions = _sessions(make_scenario("tool-calling", {"calls_mean": 4, "calls_max": 40}), 1000)
    for session in sessions:
        *loop, answer = session.turns
        assert loop
        assert [turn.has_reader for turn in loop] == [False] * len(loop)
        assert {turn.slo.name for turn in loop if turn.slo} == {"tool-loop"}
        assert answer.slo is not None
        assert answer.slo.name == "tool-answer"
        assert {turn.pause_from for turn in session.turns} == {Pause.ENDED}
        assert session.turns[0].segments[0].key == "acme/tool-calling/tools"
    assert statistics.mean(len(one.turns) - 1 for one in sessions) == pytest.approx(4, rel=0.1)
    times = [turn.pause_s for session in sessions for turn in session.turns[1:]]
    assert statistics.median(times) == pytest.approx(1, rel=0.15)


def test_most_of_a_reasoning_output_is_thinking() -> None:
    """As in the trace, 70 %."""
    turns = [session.turns[0] for session in _sessions(make_scenario("reasoning"), 2000)]
    shares = [turn.thinking_tokens / turn.output_tokens for turn in turns]
    assert statistics.mean(shares) == pytest.approx(0.7, abs=0.03)
    assert statistics.median(turn.output_tokens for turn in turns) == pytest.approx(793, rel=0.1)
    assert all(turn.slo and turn.slo.think_tpot_s == 0.05 for turn in turns)


@pytest.mark.parametrize(
    ("name", "prompt_median", "output_median", "slo"),
    [
        ("chatbot", 1020, 129, "chatbot"),
        ("coder", 1469, 13, "coder"),
        ("summarization", 2730, 167, "summarization"),
    ],
)
def test_lengths_are_those_of_the_traces(
    name: str, prompt_median: int, output_median: int, slo: str
) -> None:
    """Medians of Azure 2023 and of arXiv."""
    turns = [session.turns[0] for session in _sessions(make_scenario(name), 2000)]
    assert statistics.median(t.own_tokens for t in turns) == pytest.approx(prompt_median, rel=0.1)
    assert statistics.median(t.output_tokens for t in turns) == pytest.approx(
        output_median, rel=0.12
    )
    assert {turn.slo.name for turn in turns if turn.slo} == {slo}


def test_a_mixture_has_its_weights() -> None:
    """Each session keeps the name and the SLO of its part."""
    scenario = make_scenario("mixed", {"parts": {"chatbot": 3, "coder": {"weight": 1}}})
    sessions = _sessions(scenario, 2000)
    chats = [one for one in sessions if one.scenario == "mixed/chatbot"]
    assert len(chats) / len(sessions) == pytest.approx(0.75, abs=0.04)
    assert {one.scenario for one in sessions} == {"mixed/chatbot", "mixed/coder"}
    assert {one.turns[0].slo.name for one in chats if one.turns[0].slo} == {"chatbot"}


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_traces_row_gives_its_own_lengths(name: str) -> None:
    """The first prompt has the row's length, and the last answer of one request its output."""
    session = make_scenario(name).make_session(
        session_id="a",
        arrival_s=0.0,
        tenant="t",
        user="u",
        rng=random.Random(1),
        lengths=(1234, 56),
    )
    assert session.prompt_tokens(0) == 1234
    assert session.turns[-1].output_tokens == 56
