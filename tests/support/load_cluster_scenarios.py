"""Small forms of the six scenarios, for the tiny model, and what must be true of a run of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from readahead.workload.plan import plan
from readahead.workload.session import Pause, Session, Turn
from readahead.workload.spec import read_workload_spec

RATE_REQ_S = 2.0
SESSIONS = 6
REPORT_EVERY_S = 0.02
READERS = (
    "{preset = 'default', pace_median_tok_s = 40, reports_share = 1, "
    f"report_every_s = {REPORT_EVERY_S}, think_time = {{median_s = 0.3, sigma = 0}}}}"
)
PARAMETERS = {
    "chatbot": f"readers = {READERS}, turns_mean = 2, turns_max = 3",
    "coder": f"readers = {READERS}, turns_mean = 1.5, turns_max = 2",
    "summarization": f"readers = {READERS}",
    "mixed": "parts = {"
    + ", ".join(
        f"{name} = {{weight = 1, readers = {READERS}}}"
        for name in ("chatbot", "coder", "summarization")
    )
    + "}",
    "tool-calling": f"readers = {READERS}, calls_mean = 2, calls_max = 3, "
    "tool_time = {median_s = 0.2, sigma = 0.3}",
    "reasoning": f"readers = {READERS}, thinking_share = 0.5",
}
"""What is otherwise than the scenario has it, besides lengths."""
PROMPT_TOKENS_MAX, OUTPUT_TOKENS_MAX = 1500, 120

Records = Mapping[tuple[str, int], Mapping[str, Any]]
"""By session and turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallScenario:
    """A workload file, and the sessions that follow from it."""

    name: str
    path: Path
    sessions: Sequence[Session]


def small_scenario(name: str, folder: Path) -> SmallScenario:
    """A few sessions of this scenario that the tiny model has room for."""
    path = folder / f"{name}.toml"
    path.write_text(
        f"seed = 3\n"
        f"limits = {{sessions = {SESSIONS}}}\n"
        f'arrivals = "poisson:rate={RATE_REQ_S}"\n'
        f"[[mix]]\n"
        f'scenario = "{name}"\n'
        f"parameters = {{length_scale = 0.3, prompt_tokens_max = {PROMPT_TOKENS_MAX}, "
        f"output_tokens_max = {OUTPUT_TOKENS_MAX}, {PARAMETERS[name]}}}\n",
        encoding="utf-8",
    )
    return SmallScenario(name=name, path=path, sessions=list(plan(read_workload_spec(path))))


def by_turn(records: Sequence[Mapping[str, Any]]) -> Records:
    """The records; none twice."""
    found = {(record["session_id"], record["turn"]): record for record in records}
    assert len(found) == len(records)
    return found


def check_all_was_sent(scenario: SmallScenario, found: Records, *, are_exact: bool) -> None:
    """Each turn of each session was sent, at its length, and ended; nothing else was sent.

    Over gRPC prompts are ids, so their lengths are those planned, with what was said before.
    """
    planned = {
        (session.session_id, number): (session, turn)
        for session in scenario.sessions
        for number, turn in enumerate(session.turns)
    }
    assert found.keys() == planned.keys()
    for (_, number), (session, turn) in planned.items():
        record = found[session.session_id, number]
        assert record["outcome"] == "finished", record
        assert record["output_tokens"] == len(record["token_times_s"]) == turn.output_tokens
        assert record.get("thinking_tokens", 0) == turn.thinking_tokens
        assert record["scenario"] == session.scenario
        assert record["slo_class"]["ttft_slowdown"] > 1
        assert 1 <= record["prompt_tokens"] <= 1.5 * PROMPT_TOKENS_MAX
        if are_exact:
            assert record["prompt_tokens"] == session.prompt_tokens(number)
            assert "token_counts_estimated" not in record
        elif turn.carries_context:
            assert record["prompt_tokens"] > found[session.session_id, number - 1]["prompt_tokens"]


def check_turns_follow(scenario: SmallScenario, found: Records) -> None:
    """A first turn comes at its arrival; a later one after the tool, or after reading and
    thinking."""
    for session in scenario.sessions:
        assert found[session.session_id, 0]["arrival_s"] == pytest.approx(
            session.arrival_s, abs=1e-5
        )
        for number, turn in enumerate(session.turns[1:], start=1):
            before, record = (
                found[session.session_id, number - 1],
                found[session.session_id, number],
            )
            due_s = _free_s(before, turn) + turn.pause_s
            assert record["arrival_s"] == pytest.approx(due_s, abs=1e-4)
            assert record["sent_s"] >= record["arrival_s"]


def check_readers(scenario: SmallScenario, found: Records) -> int:
    """Where somebody reads, the record says how he fared. Returns the reports that were sent."""
    reports = 0
    for session in scenario.sessions:
        for number, turn in enumerate(session.turns):
            record = found[session.session_id, number]
            if not turn.has_reader:
                assert "pace_tok_s" not in record
                assert "reader_idle_s" not in record
                continue
            assert record["pace_tok_s"] == pytest.approx(session.reader.pace_tok_s)
            assert "is_pace_told" not in record
            assert 0 <= record["reader_idle_s"] <= record["ended_s"] - record["arrival_s"]
            assert 0 <= record["reader_tokens"] <= turn.output_tokens - turn.thinking_tokens
            assert record["reader_finished_s"] >= record["token_times_s"][-1]
            reports += record["reports_sent"]
    return reports


def _free_s(before: Mapping[str, Any], turn: Turn) -> float:
    """From when a turn's pause counts."""
    return float(before["ended_s" if turn.pause_from is Pause.ENDED else "reader_finished_s"])
