"""What an answer is to be promised."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Bounds of an answer's tokens. Those that are set go before those of the class.

    Without a class, `tpot_s` and one of `ttft_s` and `ttft_slowdown` are needed.
    """

    class_name: str = ""
    """A class that the router knows, such as "chatbot"."""
    ttft_s: float | None = None
    """Longest time from arrival to the first token."""
    ttft_slowdown: float | None = None
    """The same as a multiple of what the prompt takes on an idle cluster."""
    tpot_s: float | None = None
    """Longest time per further token of the answer."""
    think_tpot_s: float | None = None
    """The same of thinking."""
    thinking_tokens: int | None = None
    """After so many tokens the answer begins, if the thinking has not ended before."""
    think_until: str = ""
    """Text with which the thinking ends, one token of the model. Default: the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SloState:
    """What became of a promise."""

    name: str
    """The class's, or "explicit"."""
    ttft_s: float
    """When the first token was due, from arrival."""
    is_kept: bool
    """No token was late by more than 5 % of the time that was promised up to it."""
    late_s: float
    """By how much the worst token was late."""
