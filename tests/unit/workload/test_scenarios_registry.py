"""Scenarios as a workload file names and changes them."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from readahead.workload.lengths import FixedLength
from readahead.workload.lengths_joint import IndependentPair
from readahead.workload.readers import CHAT_READERS, Durations
from readahead.workload.scenarios import ConversationScenario
from readahead.workload.scenarios_mixed import MixedScenario
from readahead.workload.scenarios_registry import SCENARIOS, make_scenario, parameters_of
from readahead.workload.scenarios_tools import ToolScenario


def test_fields_are_changed_by_name() -> None:
    """Each in the form that a file has for it."""
    scenario = make_scenario(
        "chatbot",
        {
            "large": True,
            "lengths": {"prompt": 128, "output": "lognormal:median=20,sigma=0.5"},
            "readers": {"preset": "chat", "skims_share": 0.5, "patience": {"median_s": 5}},
            "turns_mean": 2,
            "followup": "40",
            "output_tokens_max": 64,
        },
    )
    assert isinstance(scenario, ConversationScenario)
    assert scenario.slo.name == "chatbot-large"
    assert isinstance(scenario.lengths, IndependentPair)
    assert scenario.lengths.prompt == FixedLength(tokens=128)
    assert scenario.readers.pace_median_tok_s == CHAT_READERS.pace_median_tok_s
    assert scenario.readers.skims_share == 0.5
    assert scenario.readers.patience == Durations(median_s=5)
    assert scenario.followup == FixedLength(tokens=40)
    assert scenario.fit.output_tokens_max == 64
    assert scenario.label == "chatbot (output <= 64)"


def test_other_forms() -> None:
    """A fitted distribution, a preset, a number of seconds, an SLO of one's own, a share."""
    tools = make_scenario("tool-calling", {"tool_time": 2.5, "readers": "long", "answer": 30})
    assert isinstance(tools, ToolScenario)
    assert tools.tool_time == Durations(median_s=2.5)
    assert tools.readers.pace_median_tok_s == 3
    coder = make_scenario(
        "coder", {"lengths": "azure2024-code", "slo": {"ttft_slowdown": 4, "tpot_s": 0.02}}
    )
    assert isinstance(coder, ConversationScenario)
    assert coder.slo.name == "own"
    assert coder.slo.tpot_s == 0.02
    session = make_scenario("reasoning", {"thinking_share": 0.5}).make_session(
        session_id="a", arrival_s=0, tenant="t", user="u", rng=random.Random(0), lengths=(10, 100)
    )
    assert session.turns[0].thinking_tokens == 50


def test_what_stands_beside_the_parts_is_for_all_of_them() -> None:
    """And what stands in one, for that one."""
    scenario = make_scenario(
        "mixed",
        {"large": True, "length_scale": 0.5, "parts": {"coder": 2, "chatbot": {"large": False}}},
    )
    assert isinstance(scenario, MixedScenario)
    assert scenario.weights == (2.0, 1.0)
    assert scenario.label == "mixed of coder (lengths x0.5) + chatbot (lengths x0.5)"
    slos = [part.slo.name for part in scenario.parts if isinstance(part, ConversationScenario)]
    assert slos == ["coder-large", "chatbot"]


@pytest.mark.parametrize(
    ("name", "parameters", "complaint"),
    [
        ("chat", {}, "no scenario is called 'chat'; known: chatbot, coder, summarization, mixed"),
        ("chatbot", {"turn_mean": 3}, "chatbot has no parameter 'turn_mean'; it has .*turns_mean"),
        ("chatbot", {"name": "x"}, "no parameter 'name'"),
        ("chatbot", {"turns_mean": "3"}, "chatbot: turns_mean must be a number, got '3'"),
        ("chatbot", {"turns_mean": 0.5}, "1 <= turns_mean <= turns_max"),
        ("chatbot", {"turns_max": True}, "turns_max must be a whole number, got True"),
        ("chatbot", {"large": 1}, "large must be true or false, got 1"),
        ("chatbot", {"lengths": "azure"}, "chatbot: lengths: no fitted lengths are called"),
        ("chatbot", {"lengths": {"prompt": 1}}, "object with prompt and output, or one of arxiv"),
        ("chatbot", {"lengths": {"prompt": 1, "output": "x"}}, "lengths.output: 'x' is no length"),
        ("chatbot", {"followup": 1.5}, "followup must be a length such as 128"),
        ("chatbot", {"readers": "slow"}, "no preset is called 'slow'; known: default, chat, long"),
        ("chatbot", {"readers": {"pace": 3}}, "readers has no 'pace'; it has .*pace_sigma"),
        ("chatbot", {"readers": {"skims_share": 2}}, r"skims_share must be within 0\.\.1"),
        ("chatbot", {"readers": {"patience": {}}}, "readers.patience: .*median_s"),
        ("chatbot", {"slo": "quick"}, "chatbot: slo: no SLO is called 'quick'"),
        ("chatbot", {"length_scale": 0}, "length_scale must be finite and > 0"),
        ("chatbot", {"prompt_tokens_max": 0}, "prompt_tokens_max must be at least 1"),
        ("chatbot", {"shared_prefix_tokens": -1}, "shared_prefix_tokens must be >= 0"),
        ("tool-calling", {"tool_time": -1}, "tool_time: median_s must be finite and > 0"),
        ("tool-calling", {"calls_mean": 20}, "1 <= calls_mean <= calls_max"),
        ("reasoning", {"thinking_share": 1.5}, r"thinking_share must be within 0\.\.1"),
        ("mixed", {"part": {}}, "mixed has no parameter 'part'"),
        ("mixed", {"parts": []}, "parts must be an object"),
        ("mixed", {"parts": {}}, "mixed needs one weight for each part"),
        ("mixed", {"parts": {"poet": 1}}, "no part is called 'poet'"),
        ("mixed", {"parts": {"coder": 0}}, "weight of coder must be finite and > 0"),
    ],
)
def test_what_is_wrong_is_named(
    name: str, parameters: Mapping[str, object], complaint: str
) -> None:
    """With what was expected."""
    with pytest.raises(ValueError, match=complaint):
        make_scenario(name, parameters)


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_lists_its_parameters(name: str) -> None:
    """Those of small machines among them."""
    assert {"large", "length_scale", "prompt_tokens_max"} <= set(parameters_of(name))
