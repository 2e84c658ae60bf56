"""Bodies of /v1/completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readahead.core.errors import ReadaheadError, Reason
from readahead.router import checks
from readahead.router.http.questions import (
    GenerationBody,
    Question,
    parse,
    question,
    refuse_unsupported,
)
from readahead.router.prompts import Prompts

MAX_TOKENS_DEFAULT = 16
"""OpenAI's, and vLLM's, for this form."""

_HARMLESS: Mapping[str, Sequence[object]] = {
    "n": (1,),
    "repetition_penalty": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (),
    "logit_bias": ({},),
}


class CompletionBody(GenerationBody):
    """POST /v1/completions."""

    prompt: Any
    best_of: Any = None
    echo: Any = None
    suffix: Any = None


async def read_completion(body: bytes, prompts: Prompts) -> tuple[Question, Sequence[int]]:
    """What is asked, and the prompt's token ids.

    Raises:
        ReadaheadError: INVALID_REQUEST, UNSUPPORTED, CONTEXT_TOO_LONG, OVERLOADED.
    """
    form = parse(CompletionBody, body)
    refuse_unsupported(form, _HARMLESS)
    max_tokens = MAX_TOKENS_DEFAULT if form.max_tokens is None else form.max_tokens
    asked = question(form, prompts, max_tokens=max_tokens)
    prompt = _single(form.prompt)
    if isinstance(prompt, str):
        return asked, await prompts.encode(checks.prompt_text(prompt))
    return asked, _token_ids(prompt, prompts)


def _single(prompt: Any) -> str | list[Any]:
    """The one prompt, where a list may hold several."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], (str, list)):
        if len(prompt) > 1:
            raise ReadaheadError(
                Reason.UNSUPPORTED,
                f"'prompt' holds {len(prompt)} prompts; send one per request.",
                parameter="prompt",
            )
        prompt = prompt[0]
    if not isinstance(prompt, (str, list)):
        raise checks.invalid(
            "Invalid value for 'prompt': it must be a string or a list of token ids.",
            parameter="prompt",
        )
    return prompt


def _token_ids(prompt: list[Any], prompts: Prompts) -> Sequence[int]:
    if len(prompt) > prompts.context_tokens_max:  # before each of them is looked at
        raise ReadaheadError(
            Reason.CONTEXT_TOO_LONG,
            f"The prompt has {len(prompt)} tokens, more than the model's context of "
            f"{prompts.context_tokens_max}.",
            parameter="prompt",
            metadata={"context_tokens_max": str(prompts.context_tokens_max)},
        )
    if set(map(type, prompt)) - {int}:  # True is an int to isinstance
        raise checks.invalid(
            "Invalid value for 'prompt': a list must hold token ids only.", parameter="prompt"
        )
    return checks.prompt_tokens(prompt, vocabulary_tokens=prompts.vocabulary_tokens)
