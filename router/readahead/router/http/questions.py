"""Bodies of generation requests: what both of OpenAI's forms share, and what comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from readahead.core.errors import ReadaheadError, Reason
from readahead.core.reading.pace import Scenario
from readahead.core.slo import SloAsked
from readahead.router import checks
from readahead.router.http.errors import from_validation
from readahead.router.prompts import Prompts
from readahead.router.sessions import Sampling

Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A well-formed body, as a front door understands it."""

    model: str
    """Empty: the one that is served."""
    sampling: Sampling
    pace_tok_s: float | None
    user_id: str
    slo: SloAsked | None
    scenario: Scenario | None
    is_stream: bool
    has_usage: bool
    """Whether a stream ends with a frame of token counts."""
    has_running_usage: bool
    """Whether each frame says how many tokens there are so far."""
    has_reading: bool
    """Whether the reader's state goes with these: only who uses our extension expects it."""


class Strict(BaseModel):
    """Unknown fields and wrong types are refused: a setting that is dropped helps nobody."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    """`stream_options`."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """vLLM's: counts with every frame."""
    include_obfuscation: bool | None = None
    """Pads frames against traffic analysis; taken iff false."""


class SloBody(Strict):
    """`readahead.slo`, where it is an object."""

    class_name: str | None = Field(default=None, alias="class")
    ttft_s: float | None = None
    ttft_slowdown: float | None = None
    tpot_s: float | None = None
    think_tpot_s: float | None = None
    thinking_tokens: int | None = None
    think_until: str | None = None


def _named(value: Any) -> Any:
    return SloBody.model_construct(class_name=value) if isinstance(value, str) else value


class Extension(Strict):
    """`readahead`: what OpenAI's interface has no word for."""

    pace_tok_s: float | None = None
    slo: Annotated[SloBody | None, BeforeValidator(_named)] = None
    """The name of a class, or bounds."""


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class GenerationBody(Strict):
    """Fields of both forms."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_listed)] = None
    user: str | None = None

    # What vLLM's server takes beyond OpenAI's.
    top_k: int | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    repetition_penalty: Any = None
    """Taken iff 1, which asks for nothing: see `refuse_unsupported`."""

    readahead: Extension | None = None

    # Taken where they ask for nothing: see `refuse_unsupported`.
    n: Any = None
    logprobs: Any = None
    logit_bias: Any = None


def parse(form: type[Body], body: bytes) -> Body:
    """A body as its form has it.

    Raises:
        ReadaheadError: INVALID_REQUEST.
    """
    try:
        return form.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error


def refuse_unsupported(
    form: BaseModel, harmless: Mapping[str, Sequence[object]], *, prefix: str = ""
) -> None:
    """Refuses fields that ask for what is not there. None asks for nothing.

    Args:
        form: a parsed body, or part of one.
        harmless: by field, the values that ask for nothing either.
        prefix: goes before the field's name in the error.

    Raises:
        ReadaheadError: UNSUPPORTED; `parameter` names the field.
    """
    for name, values in harmless.items():
        value = getattr(form, name)
        if value is not None and value not in values:
            parameter = prefix + name
            raise ReadaheadError(
                Reason.UNSUPPORTED, f"'{parameter}' is not supported.", parameter=parameter
            )


def question(
    body: GenerationBody,
    prompts: Prompts,
    *,
    max_tokens: int | None,
    max_tokens_name: str = "max_tokens",
    scenario: Scenario | None = None,
) -> Question:
    """What the shared fields say, checked.

    Raises:
        ReadaheadError: INVALID_REQUEST, UNSUPPORTED.
    """
    options = body.stream_options
    if options is not None:
        if not body.stream:
            raise checks.invalid(
                "'stream_options' is only allowed when 'stream' is true.",
                parameter="stream_options",
            )
        refuse_unsupported(options, {"include_obfuscation": (False,)}, prefix="stream_options.")
    extension = body.readahead
    return Question(
        model=body.model or "",
        sampling=_sampling(body, max_tokens, max_tokens_name),
        pace_tok_s=checks.pace(
            extension.pace_tok_s if extension else None, parameter="readahead.pace_tok_s"
        ),
        user_id=checks.user_id(body.user or "", parameter="user"),
        slo=_slo(extension.slo, prompts) if extension and extension.slo else None,
        scenario=scenario,
        is_stream=bool(body.stream),
        has_usage=bool(options and options.include_usage),
        has_running_usage=bool(options and options.continuous_usage_stats),
        has_reading=extension is not None,
    )


def _slo(body: SloBody, prompts: Prompts) -> SloAsked:
    return checks.slo(
        {
            "class_name": body.class_name,
            "ttft_s": body.ttft_s,
            "ttft_slowdown": body.ttft_slowdown,
            "tpot_s": body.tpot_s,
            "think_tpot_s": body.think_tpot_s,
            "thinking_tokens": body.thinking_tokens,
            "think_until": body.think_until,
        },
        think_end_token_id=prompts.think_end_token_id,
        token_id=prompts.token_id,
        parameter="readahead.slo",
        class_field="class",
    )


def _sampling(body: GenerationBody, max_tokens: int | None, max_tokens_name: str) -> Sampling:
    try:
        return checks.sampling(
            {
                "max_tokens": max_tokens,
                "temperature": body.temperature,
                "top_p": body.top_p,
                "top_k": body.top_k,
                "presence_penalty": body.presence_penalty,
                "frequency_penalty": body.frequency_penalty,
                "seed": body.seed,
                "stop": body.stop,
                "ignore_eos": body.ignore_eos,
                "min_tokens": body.min_tokens,
            }
        )
    except ReadaheadError as error:
        if error.parameter == "max_tokens":  # the caller may know it by its other name
            raise checks.invalid(
                error.message.replace("max_tokens", max_tokens_name), parameter=max_tokens_name
            ) from error
        raise
