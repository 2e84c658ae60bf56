"""From keyword arguments to a request."""

from __future__ import annotations

from typing import Any, cast

import pytest

from readahead.client import GenerateOptions, InvalidRequestError, Tls
from readahead.client.connection import address_of
from readahead.client.options import generate_request


def test_unset_options_stay_unset() -> None:
    """What the caller leaves out is the server's to choose, so presence is kept."""
    request = generate_request("hello", {})
    assert request.prompt == "hello"
    assert not request.sampling.HasField("temperature")
    assert not request.sampling.HasField("max_tokens")
    assert not request.reading.HasField("pace_tok_s")


def test_zero_is_a_value() -> None:
    """temperature=0 is greedy, not unset."""
    request = generate_request("hello", {"temperature": 0, "seed": 0})
    assert request.sampling.HasField("temperature")
    assert request.sampling.HasField("seed")


def test_all_options_arrive() -> None:
    """Each option has its field."""
    request = generate_request(
        None,
        {
            "chat": [{"role": "user", "content": "hi"}],
            "model": "m",
            "request_id": "r",
            "max_tokens": 5,
            "top_p": 0.5,
            "top_k": 3,
            "presence_penalty": 0.25,
            "frequency_penalty": -0.25,
            "stop": "END",
            "ignore_eos": True,
            "min_tokens": 2,
            "pace_tok_s": 5.0,
            "user_id": "u",
        },
    )
    assert request.chat.messages[0].role == "user"
    assert request.chat.messages[0].content == "hi"
    assert (request.model, request.request_id) == ("m", "r")
    assert list(request.sampling.stop) == ["END"]
    assert request.sampling.ignore_eos
    assert (request.sampling.max_tokens, request.sampling.min_tokens) == (5, 2)
    assert (request.reading.pace_tok_s, request.reading.user_id) == (5.0, "u")


@pytest.mark.parametrize(
    ("prompt", "options", "parameter"),
    [
        (None, {}, "prompt"),
        ("a", {"token_ids": [1]}, "prompt"),
        (3, {}, "prompt"),
        ("a", {"max_tokens": -1}, "max_tokens"),
        ("a", {"temperature": "hot"}, "temperature"),
        ("a", {"stop": 3}, "stop"),
        (None, {"token_ids": [-1]}, "token_ids"),
        (None, {"token_ids": [1 << 40]}, "token_ids"),
        (None, {"chat": [{"role": "user"}]}, "chat"),
        (None, {"chat": ["hi"]}, "chat"),
        ("a", {"pace_tok_s": "slow"}, "pace_tok_s"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(
    prompt: Any, options: dict[str, Any], parameter: str
) -> None:
    """A value that the protocol cannot carry names its parameter."""
    with pytest.raises(InvalidRequestError) as caught:
        generate_request(prompt, cast("GenerateOptions", options))
    assert caught.value.parameter == parameter


def test_an_unknown_option_is_a_type_error() -> None:
    """As for any keyword argument that does not exist."""
    with pytest.raises(TypeError, match="maxtokens"):
        generate_request("a", cast("GenerateOptions", {"maxtokens": 3}))


def test_targets() -> None:
    """host:port, with or without the scheme."""
    assert address_of("127.0.0.1:50051") == "127.0.0.1:50051"
    assert address_of("grpc://router:50051/") == "router:50051"
    assert address_of("[::1]:50051") == "[::1]:50051"
    for wrong in ("router", "http://router:80", "router:", ""):
        with pytest.raises(ValueError, match="host:port"):
            address_of(wrong)


def test_a_certificate_needs_its_key() -> None:
    """One without the other is a mistake."""
    with pytest.raises(ValueError, match="go together"):
        Tls(certificate_file="a.pem")
