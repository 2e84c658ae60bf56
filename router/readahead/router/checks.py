"""What is wrong with a request, told before anything is spent on it. Both doors ask here."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Sequence
from typing import TypedDict

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.promise import SECONDS_MAX
from readahead.core.request import RequestId
from readahead.core.slo import SLOWDOWN_MAX, SloAsked
from readahead.router.sessions import Sampling

REQUEST_ID_CHARS_MAX = 128
USER_ID_CHARS_MAX = 128
STOP_STRINGS_MAX = 16
STOP_CHARS_MAX = 256
OUTPUT_TOKENS_MAX = 2**31 - 1
"""Engines count tokens in 32 signed bits; the context is checked once the prompt is known."""
PACE_TOK_S_MAX = 1000.0
TIMEOUT_S_MAX = 86_400.0
"""A day: longer is a mistake in units."""

SLO_NAME_CHARS_MAX = 64
TPOT_S_MIN = 1e-3
"""No engine makes tokens of one request faster; less is a mistake in units."""

_REQUEST_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{REQUEST_ID_CHARS_MAX}}}", re.ASCII)


class SamplingValues(TypedDict, total=False):
    """What a caller said of sampling. None and absence both mean: the default."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: Sequence[str] | None
    ignore_eos: bool | None
    min_tokens: int | None


class SloValues(TypedDict, total=False):
    """What a caller said of an SLO. None and absence both mean: nothing."""

    class_name: str | None
    ttft_s: float | None
    ttft_slowdown: float | None
    tpot_s: float | None
    think_tpot_s: float | None
    thinking_tokens: int | None
    think_until: str | None


def invalid(message: str, *, parameter: str | None) -> ReadaheadError:
    """The caller sent a value that cannot be taken."""
    return ReadaheadError(Reason.INVALID_REQUEST, message, parameter=parameter)


def new_request_id() -> RequestId:
    """A fresh id: 32 hexadecimal digits."""
    return RequestId(uuid.uuid4().hex)


def is_request_id(text: str) -> bool:
    """Whether a caller may use this id."""
    return _REQUEST_ID.fullmatch(text) is not None


def request_id(text: str, *, parameter: str = "request_id") -> RequestId:
    """The caller's id, or a fresh one where he gave none.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if not text:
        return new_request_id()
    if not is_request_id(text):
        raise invalid(
            f"{parameter} must be 1 to {REQUEST_ID_CHARS_MAX} of A-Z, a-z, 0-9, '.', '_' and '-'.",
            parameter=parameter,
        )
    return RequestId(text)


def sampling(values: SamplingValues, *, prefix: str = "") -> Sampling:
    """Checked sampling with defaults filled in.

    Args:
        values: what the caller said.
        prefix: goes before a field's name in errors, as in "sampling.".

    Raises:
        ReadaheadError: INVALID_REQUEST; `parameter` names the field.
    """
    max_tokens = values.get("max_tokens")
    if max_tokens is not None:
        _whole(max_tokens, prefix + "max_tokens", least=1, most=OUTPUT_TOKENS_MAX)
    seed = values.get("seed")
    if seed is not None:
        _whole(seed, prefix + "seed", least=-(2**63), most=2**63 - 1)
    checked = Sampling(
        max_tokens=max_tokens,
        temperature=_real(values.get("temperature"), 1.0, prefix + "temperature", least=0, most=2),
        top_p=_top_p(values.get("top_p"), prefix + "top_p"),
        top_k=_whole(values.get("top_k") or 0, prefix + "top_k", least=0, most=OUTPUT_TOKENS_MAX),
        presence_penalty=_penalty(values.get("presence_penalty"), prefix + "presence_penalty"),
        frequency_penalty=_penalty(values.get("frequency_penalty"), prefix + "frequency_penalty"),
        seed=seed,
        stop=_stop(values.get("stop") or (), prefix + "stop"),
        ignore_eos=bool(values.get("ignore_eos")),
        min_tokens=_whole(
            values.get("min_tokens") or 0, prefix + "min_tokens", least=0, most=OUTPUT_TOKENS_MAX
        ),
    )
    if max_tokens is not None and checked.min_tokens > max_tokens:
        raise invalid(
            f"min_tokens ({checked.min_tokens}) is above max_tokens ({max_tokens}).",
            parameter=prefix + "min_tokens",
        )
    return checked


def pace(pace_tok_s: float | None, *, parameter: str = "pace_tok_s") -> float | None:
    """Tokens per second that the user reads; None: the router's preset.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if pace_tok_s is None:
        return None
    return _positive(pace_tok_s, parameter, most=PACE_TOK_S_MAX)


def slo(
    values: SloValues,
    *,
    think_end_token_id: int | None,
    token_id: Callable[[str], int | None],
    parameter: str = "slo",
    class_field: str = "class_name",
) -> SloAsked:
    """What a caller wants to be promised.

    Args:
        values: what he said.
        think_end_token_id: with which the model's thinking ends, if it has such a token.
        token_id: the token that a text is; None: it is not one.
        parameter: what the whole is called in errors.
        class_field: what the class's name is called there.

    Raises:
        ReadaheadError: INVALID_REQUEST; `parameter` names the field.
    """
    prefix = parameter + "."
    name, until = values.get("class_name") or "", values.get("think_until") or ""
    if len(name) > SLO_NAME_CHARS_MAX:
        raise invalid(f"{prefix}{class_field} is too long.", parameter=prefix + class_field)
    ttft_s = _optional(values.get("ttft_s"), prefix + "ttft_s", most=SECONDS_MAX)
    slowdown = _optional(values.get("ttft_slowdown"), prefix + "ttft_slowdown", most=SLOWDOWN_MAX)
    if ttft_s is not None and slowdown is not None:
        raise invalid(
            f"{prefix}ttft_s and {prefix}ttft_slowdown do not go together.",
            parameter=prefix + "ttft_slowdown",
        )
    thinking = values.get("thinking_tokens")
    if thinking is not None:
        _whole(thinking, prefix + "thinking_tokens", least=0, most=OUTPUT_TOKENS_MAX)
    if until:
        think_end_token_id = token_id(until)
        if think_end_token_id is None:
            raise invalid(
                f"{prefix}think_until must be one token of the model.",
                parameter=prefix + "think_until",
            )
    return SloAsked(
        class_name=name,
        ttft_s=ttft_s,
        ttft_slowdown=slowdown,
        tpot_s=_token_time(values.get("tpot_s"), prefix + "tpot_s"),
        think_tpot_s=_token_time(values.get("think_tpot_s"), prefix + "think_tpot_s"),
        thinking_tokens=thinking,
        until_token_id=think_end_token_id,
        parameter=parameter,
    )


def timeout(timeout_s: float | None, *, parameter: str = "timeout_s") -> float | None:
    """Seconds until the caller gives up; None: he waits.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if timeout_s is None:
        return None
    return _positive(timeout_s, parameter, most=TIMEOUT_S_MAX)


def user_id(text: str, *, parameter: str = "user_id") -> str:
    """The reader's opaque name.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if len(text) > USER_ID_CHARS_MAX:
        raise invalid(
            f"{parameter} has {len(text)} characters; at most {USER_ID_CHARS_MAX} are taken.",
            parameter=parameter,
        )
    return text


def prompt_text(text: str, *, parameter: str = "prompt") -> str:
    """A prompt that is not empty.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if not text:
        raise invalid(f"{parameter} is empty.", parameter=parameter)
    return text


def prompt_tokens(
    token_ids: Sequence[int], *, vocabulary_tokens: int, parameter: str = "prompt"
) -> Sequence[int]:
    """Token ids that the model knows; at least one.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    if not token_ids:
        raise invalid(f"{parameter} is empty.", parameter=parameter)
    if min(token_ids) < 0 or max(token_ids) >= vocabulary_tokens:
        raise invalid(
            f"{parameter} has a token id outside the model's vocabulary, 0 to "
            f"{vocabulary_tokens - 1}.",
            parameter=parameter,
        )
    return token_ids


def tokens_read(count: int, *, parameter: str = "tokens_read") -> int:
    """Output tokens that a user has read.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    return _whole(count, parameter, least=0, most=OUTPUT_TOKENS_MAX)


def _whole(value: int, parameter: str, *, least: int, most: int) -> int:
    if not least <= value <= most:
        raise invalid(
            f"{parameter} must be in [{least}, {most}], got {value}.", parameter=parameter
        )
    return value


def _real(
    value: float | None, default: float, parameter: str, *, least: float, most: float
) -> float:
    if value is None:
        return default
    if not math.isfinite(value) or not least <= value <= most:
        raise invalid(
            f"{parameter} must be in [{least:g}, {most:g}], got {value:g}.", parameter=parameter
        )
    return float(value)


def _positive(value: float, parameter: str, *, most: float) -> float:
    if not math.isfinite(value) or not 0 < value <= most:
        raise invalid(f"{parameter} must be in (0, {most:g}], got {value:g}.", parameter=parameter)
    return float(value)


def _optional(value: float | None, parameter: str, *, most: float) -> float | None:
    return None if value is None else _positive(value, parameter, most=most)


def _token_time(value: float | None, parameter: str) -> float | None:
    if value is None:
        return None
    return _real(value, 0.0, parameter, least=TPOT_S_MIN, most=SECONDS_MAX)


def _penalty(value: float | None, parameter: str) -> float:
    return _real(value, 0.0, parameter, least=-2, most=2)


def _top_p(value: float | None, parameter: str) -> float:
    return 1.0 if value is None else _positive(value, parameter, most=1)


def _stop(strings: Sequence[str], parameter: str) -> tuple[str, ...]:
    if len(strings) > STOP_STRINGS_MAX:
        raise invalid(
            f"{parameter} has {len(strings)} strings; at most {STOP_STRINGS_MAX} are taken.",
            parameter=parameter,
        )
    for string in strings:
        if not string:
            raise invalid(f"{parameter} has an empty string.", parameter=parameter)
        if len(string) > STOP_CHARS_MAX:
            raise invalid(
                f"{parameter} has a string of {len(string)} characters; at most {STOP_CHARS_MAX} "
                "are taken.",
                parameter=parameter,
            )
    return tuple(strings)
