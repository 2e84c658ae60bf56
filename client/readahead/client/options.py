"""What can be asked of `generate`, and the one builder of the request behind it."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TypedDict

from readahead.client.errors import InvalidRequestError
from readahead.client.slo import Slo
from readahead.v1 import inference_service_pb2 as pb


class GenerateOptions(TypedDict, total=False):
    """Keyword arguments of `generate`. What is left out is the server's to choose."""

    chat: Sequence[Mapping[str, str]]
    """A conversation: mappings with "role" and "content". Instead of `prompt`."""
    token_ids: Sequence[int]
    """A tokenised prompt. Instead of `prompt`."""
    model: str
    """A name from `models()`. Default: the only model served."""
    request_id: str
    """Unique id, at most 128 of [A-Za-z0-9._-]. Default: made by the client."""
    max_tokens: int
    temperature: float
    """0 is greedy."""
    top_p: float
    top_k: int
    presence_penalty: float
    frequency_penalty: float
    seed: int
    stop: str | Sequence[str]
    """The answer ends before any of these."""
    ignore_eos: bool
    """For benchmarks: the end-of-sequence token does not end the answer."""
    min_tokens: int
    pace_tok_s: float
    """Tokens per second that the user reads."""
    user_id: str
    """Stable, opaque name of the reader."""
    slo: str | Slo
    """What the answer is to be promised: the name of a class, or bounds."""
    timeout_s: float | None
    """Seconds for all of it, retries included. None: no limit. Default: the client's."""
    headers: Mapping[str, str]
    """gRPC metadata to send, such as `traceparent`."""


_SAMPLING = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "ignore_eos",
    "min_tokens",
)
_SLO = tuple(field.name for field in fields(Slo))


def generate_request(prompt: str | None, options: GenerateOptions) -> pb.GenerateRequest:
    """The request that `generate(prompt, **options)` stands for, without an id if none is given.

    Raises:
        InvalidRequestError: not exactly one input, or a value that the protocol cannot carry.
        TypeError: an option that does not exist.
    """
    unknown = options.keys() - GenerateOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"generate() has no option {sorted(unknown)[0]!r}")
    request = pb.GenerateRequest()
    _set_input(request, prompt, options)
    for name in ("model", "request_id"):
        _set(request, name, options.get(name))
    for name in _SAMPLING:
        _set(request.sampling, name, options.get(name))
    stop = options.get("stop")
    if stop is not None:
        try:
            request.sampling.stop.extend([stop] if isinstance(stop, str) else stop)
        except TypeError as error:
            raise _invalid("stop", error) from error
    _set(request.reading, "pace_tok_s", options.get("pace_tok_s"))
    _set(request.reading, "user_id", options.get("user_id"))
    _set_slo(request, options.get("slo"))
    return request


def new_request_id() -> str:
    """An id that nobody else has."""
    return uuid.uuid4().hex


def _set_input(request: pb.GenerateRequest, prompt: str | None, options: GenerateOptions) -> None:
    chat, token_ids = options.get("chat"), options.get("token_ids")
    if sum(given is not None for given in (prompt, chat, token_ids)) != 1:
        raise InvalidRequestError(
            "INVALID_REQUEST",
            "give exactly one of a prompt, chat= and token_ids=",
            parameter="prompt",
        )
    if prompt is not None:
        _set(request, "prompt", prompt)
    elif token_ids is not None:
        try:
            request.token_ids.ids.extend(token_ids)
        except (TypeError, ValueError) as error:
            raise _invalid("token_ids", error) from error
        request.token_ids.SetInParent()
    elif chat is not None:
        request.chat.SetInParent()
        for turn in chat:
            try:
                request.chat.messages.add(role=turn["role"], content=turn["content"])
            except (KeyError, TypeError) as error:
                raise _invalid("chat", error) from error


def _set_slo(request: pb.GenerateRequest, slo: str | Slo | None) -> None:
    if slo is None:
        return
    asked = slo if isinstance(slo, Slo) else Slo(class_name=slo)
    request.slo.SetInParent()
    for name in _SLO:
        try:
            _set(request.slo, name, getattr(asked, name))
        except InvalidRequestError as error:
            raise InvalidRequestError(
                error.reason, f"slo.{error.message}", parameter=f"slo.{name}"
            ) from error


def _set(message: pb.GenerateRequest | pb.Reading | object, name: str, value: object) -> None:
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (TypeError, ValueError) as error:
        raise _invalid(name, error) from error


def _invalid(parameter: str, error: Exception) -> InvalidRequestError:
    return InvalidRequestError("INVALID_REQUEST", f"{parameter}: {error}", parameter=parameter)
