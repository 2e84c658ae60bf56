"""What both doors refuse, and by which name."""

from __future__ import annotations

import math
from typing import Any

import pytest

from readahead.core.errors import ReadaheadError, Reason
from readahead.router import checks
from readahead.router.sessions import Sampling


def refusal(call: Any, *arguments: Any, **options: Any) -> ReadaheadError:
    with pytest.raises(ReadaheadError) as caught:
        call(*arguments, **options)
    assert caught.value.reason is Reason.INVALID_REQUEST
    return caught.value


@pytest.mark.parametrize("text", ["a", "A.b_c-9", "x" * 128])
def test_request_id_is_taken(text: str) -> None:
    """A usable id is the request's."""
    assert checks.request_id(text) == text


@pytest.mark.parametrize("text", ["a b", "é", "x" * 129, "a/b", "a\n", "\u0661"])
def test_request_id_is_refused(text: str) -> None:
    """Others are named."""
    assert refusal(checks.request_id, text).parameter == "request_id"
    assert not checks.is_request_id(text)


def test_request_id_is_made() -> None:
    """Without one there is a fresh one, which would itself be taken."""
    first, second = checks.request_id(""), checks.new_request_id()
    assert first != second
    assert checks.is_request_id(first)


def test_sampling_defaults() -> None:
    """None and absence mean the default."""
    nothing = dict.fromkeys(checks.SamplingValues.__annotations__)
    assert checks.sampling({}) == Sampling()
    assert checks.sampling(nothing) == Sampling()  # type: ignore[arg-type]  # keys are the same


def test_sampling_takes_the_bounds() -> None:
    """Each bound itself is within."""
    low: checks.SamplingValues = {
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 1e-9,
        "top_k": 0,
        "presence_penalty": -2.0,
        "frequency_penalty": -2.0,
        "seed": -(2**63),
        "stop": ["x"],
        "min_tokens": 1,
    }
    high: checks.SamplingValues = {
        "max_tokens": 2**31 - 1,
        "temperature": 2.0,
        "top_p": 1.0,
        "top_k": 2**31 - 1,
        "presence_penalty": 2.0,
        "frequency_penalty": 2.0,
        "seed": 2**63 - 1,
        "stop": ["x" * 256] * 16,
        "min_tokens": 2**31 - 1,
        "ignore_eos": True,
    }
    assert checks.sampling(low).stop == ("x",)
    assert checks.sampling(high).ignore_eos


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 2**31),
        ("temperature", -0.01),
        ("temperature", 2.01),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("top_k", -1),
        ("top_k", 2**31),
        ("presence_penalty", 2.1),
        ("presence_penalty", -math.inf),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", math.nan),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("stop", [""]),
        ("stop", ["x"] * 17),
        ("stop", ["x" * 257]),
        ("min_tokens", -1),
    ],
)
def test_sampling_out_of_bounds(field: str, value: Any) -> None:
    """Each is refused under its own name, with the door's prefix."""
    values: Any = {field: value}
    error = refusal(checks.sampling, values, prefix="sampling.")
    assert error.parameter == f"sampling.{field}"
    assert f"sampling.{field}" in error.message


def test_min_tokens_above_max_tokens() -> None:
    """Their relation is checked."""
    values: checks.SamplingValues = {"max_tokens": 3, "min_tokens": 4}
    assert refusal(checks.sampling, values).parameter == "min_tokens"


@pytest.mark.parametrize("value", [0.0, -1.0, 1000.1, math.nan, math.inf])
def test_pace_out_of_bounds(value: float) -> None:
    """Nobody reads like that."""
    assert refusal(checks.pace, value).parameter == "pace_tok_s"


def test_pace() -> None:
    """None is the preset; the rest is taken as it is."""
    assert checks.pace(None) is None
    assert checks.pace(1000) == 1000.0


@pytest.mark.parametrize("value", [0.0, -1.0, 86_401.0, math.nan, math.inf])
def test_timeout_out_of_bounds(value: float) -> None:
    """Nor does anybody wait like that."""
    assert refusal(checks.timeout, value).parameter == "timeout_s"


def test_timeout() -> None:
    """None waits."""
    assert checks.timeout(None) is None
    assert checks.timeout(0.001) == 0.001


def test_user_id() -> None:
    """128 characters at most."""
    assert checks.user_id("x" * 128)
    assert refusal(checks.user_id, "x" * 129).parameter == "user_id"


def test_empty_prompt() -> None:
    """There must be something to continue."""
    assert checks.prompt_text(" ") == " "
    assert refusal(checks.prompt_text, "").parameter == "prompt"
    assert refusal(checks.prompt_tokens, [], vocabulary_tokens=8).parameter == "prompt"


@pytest.mark.parametrize("token_ids", [[0, -1], [8], [2**40]])
def test_token_ids_outside_the_vocabulary(token_ids: list[int]) -> None:
    """An id without a row in the embedding would take the engine down."""
    error = refusal(checks.prompt_tokens, token_ids, vocabulary_tokens=8, parameter="token_ids")
    assert error.parameter == "token_ids"


def test_token_ids() -> None:
    """Ids of the vocabulary pass."""
    assert checks.prompt_tokens([0, 7], vocabulary_tokens=8) == [0, 7]


def test_tokens_read() -> None:
    """A count is not negative."""
    assert checks.tokens_read(0) == 0
    assert refusal(checks.tokens_read, -1).parameter == "tokens_read"
