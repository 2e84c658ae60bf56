"""One request as a sender gets it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a conversation, by one side of it."""

    role: Literal["user", "assistant"]
    content: str | Sequence[int]
    """Text, or token ids. The parts of one request are of one kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """An SLO as a target of ours takes it, bound by bound: whatever classes it knows."""

    ttft_s: float
    tpot_s: float
    think_tpot_s: float | None = None
    thinking_tokens: int | None = None

    def fields(self) -> dict[str, float | int]:
        """Those that are set, by name."""
        named = dataclasses.asdict(self)
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent: a conversation so far, and what is asked for."""

    request_id: str
    parts: tuple[Part, ...]
    output_tokens: int
    """Asked for as `max_tokens`."""
    pace_tok_s: float | None = None
    """How fast its user reads. None: the system is not told."""
    user: str = ""
    """Who he is. Empty: the system is not told."""
    slo: Promised | None = None
    """What it is to be promised. None: the system is not told."""

    @property
    def text(self) -> str:
        """All of it as one text, for a completion."""
        return "".join(part.content for part in self.parts if isinstance(part.content, str))

    @property
    def token_ids(self) -> list[int] | None:
        """All of it as token ids; None where it is text."""
        ids: list[int] = []
        for part in self.parts:
            if isinstance(part.content, str):
                return None
            ids.extend(part.content)
        return ids

    @property
    def messages(self) -> list[dict[str, str]]:
        """All of it as a chat: neighbours of one side are one message.

        Raises:
            ValueError: it is token ids, which no chat takes.
        """
        messages: list[dict[str, str]] = []
        for part in self.parts:
            if not isinstance(part.content, str):
                raise ValueError("a chat takes text, not token ids")
            if messages and messages[-1]["role"] == part.role:
                messages[-1]["content"] += part.content
            else:
                messages.append({"role": part.role, "content": part.content})
        return messages
