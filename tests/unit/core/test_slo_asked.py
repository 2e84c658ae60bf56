"""From what a caller asks for to what he is promised."""

from __future__ import annotations

from dataclasses import replace

import pytest

from readahead.core.promise import Promise, PromisedStage
from readahead.core.slo import PAPER_CLASSES, SloAsked, SloClass, SloConfig, promised

ALONE_S = 0.1
UNKNOWN_S = 1.0
THINK_END = 3


def promise(
    asked: SloAsked, config: SloConfig | None = None, alone_s: float | None = ALONE_S
) -> Promise:
    classes = (config or SloConfig()).known()
    return promised(asked, classes, zero_load_ttft_s=alone_s, ttft_s=UNKNOWN_S).promise


@pytest.mark.parametrize("name", PAPER_CLASSES)
def test_a_class_promises_what_it_says(name: str) -> None:
    """A multiple of the idle cluster's time, then a time per token."""
    found = promise(SloAsked(class_name=name))
    assert found.first_token_s == pytest.approx(PAPER_CLASSES[name].ttft_slowdown * ALONE_S)
    assert found.stages == (PromisedStage(token_s=PAPER_CLASSES[name].tpot_s),)


@pytest.mark.parametrize(("tokens", "token_id"), [(40, None), (None, THINK_END), (40, THINK_END)])
def test_thinking_is_a_stage_of_its_own_where_it_ends(
    tokens: int | None, token_id: int | None
) -> None:
    """After so many tokens, or with a certain one."""
    asked = SloAsked(class_name="reasoning", thinking_tokens=tokens, until_token_id=token_id)
    thinking = PromisedStage(token_s=0.05, tokens=tokens, until_token_id=token_id)
    assert promise(asked).stages == (thinking, PromisedStage(token_s=0.1))
    chat = replace(asked, class_name="chatbot")
    assert promise(chat).stages == (PromisedStage(token_s=0.1),)


def test_one_who_does_not_think_is_promised_an_answer() -> None:
    """No token of thinking is none, whatever would end it."""
    asked = SloAsked(class_name="reasoning", thinking_tokens=0, until_token_id=THINK_END)
    assert promise(asked).stages == (PromisedStage(token_s=0.1),)


def test_bounds_go_before_the_class() -> None:
    """Each by itself."""
    asked = SloAsked(class_name="coder", tpot_s=0.4)
    assert promise(asked) == Promise(
        first_token_s=5 * ALONE_S, stages=(PromisedStage(token_s=0.4),)
    )
    assert promise(replace(asked, ttft_s=7.0)).first_token_s == 7.0
    assert promise(replace(asked, ttft_slowdown=2.0)).first_token_s == pytest.approx(0.2)


def test_without_the_idle_clusters_time_a_slow_down_is_a_second() -> None:
    """But who says seconds gets them."""
    asked = SloAsked(class_name="coder")
    assert promise(asked, alone_s=None).first_token_s == UNKNOWN_S
    assert promise(replace(asked, ttft_s=0.2), alone_s=None).first_token_s == 0.2


def test_a_class_of_the_settings_takes_the_place_of_a_built_in_one() -> None:
    """And the others stay."""
    mine = SloClass(name="coder", ttft_s=0.3, tpot_s=0.2, think_tpot_s=0.1)
    config = SloConfig(classes=(mine, SloClass(name="mine", ttft_slowdown=2, tpot_s=0.2)))
    asked = SloAsked(class_name="coder", thinking_tokens=5)
    thinking = PromisedStage(token_s=0.1, tokens=5)
    assert promise(asked, config) == Promise(
        first_token_s=0.3, stages=(thinking, PromisedStage(token_s=0.2))
    )
    assert set(config.known()) == {*PAPER_CLASSES, "mine"}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (SloAsked(), "give a class, or tpot_s"),
        (SloAsked(ttft_s=1.0), "give a class, or tpot_s"),
        (SloAsked(tpot_s=0.1), "give a class, ttft_s or ttft_slowdown"),
        (SloAsked(class_name="choco"), "no class 'choco'; there are chatbot"),
        (SloAsked(ttft_s=1.0, tpot_s=0.1, think_tpot_s=0.1), "say when the thinking ends"),
    ],
)
def test_half_an_slo_is_none(asked: SloAsked, why: str) -> None:
    """And it is said what is missing."""
    with pytest.raises(ValueError, match=why):
        promise(asked)


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "", "ttft_s": 1.0, "tpot_s": 0.1},
        {"name": "explicit", "ttft_s": 1.0, "tpot_s": 0.1},
        {"name": "both", "ttft_s": 1.0, "ttft_slowdown": 2.0, "tpot_s": 0.1},
        {"name": "neither", "tpot_s": 0.1},
        {"name": "fast", "ttft_s": 1.0, "tpot_s": 0.0},
        {"name": "fast", "ttft_s": 1.0, "tpot_s": 0.1, "think_tpot_s": 1e-6},
    ],
)
def test_a_class_that_cannot_be_is_refused(fields: dict[str, float | str]) -> None:
    """When the settings are read."""
    with pytest.raises(ValueError, match=r"slo\.classes"):
        SloClass(**fields)  # type: ignore[arg-type]


def test_a_name_is_there_once() -> None:
    """Nobody could tell which of two counts."""
    mine = SloClass(name="mine", ttft_s=0.3, tpot_s=0.2)
    with pytest.raises(ValueError, match="'mine' is there twice"):
        SloConfig(classes=(mine, mine))


def test_the_settings_may_say_the_idle_clusters_time() -> None:
    """A line over the prompt's length; nothing by default."""
    assert SloConfig().zero_load_ttft_s(100) is None
    stated = SloConfig(zero_load_base_s=0.5, zero_load_token_s=0.01)
    assert stated.zero_load_ttft_s(100) == pytest.approx(1.5)
