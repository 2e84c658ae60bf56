"""What people come for: each scenario makes sessions.

A session depends on nothing but the scenario, the arguments and the random numbers given.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

from readahead.workload.lengths import Lengths
from readahead.workload.lengths_fitted import load_fitted
from readahead.workload.lengths_joint import LengthPair, ScaledPair
from readahead.workload.readers import (
    CHAT_READERS,
    DEFAULT_READERS,
    LONG_TEXT_READERS,
    ReaderPopulation,
)
from readahead.workload.scenarios_slo import slo_class
from readahead.workload.session import Segment, Session, Turn
from readahead.workload.slo import SloClass


class Scenario(Protocol):
    """Makes the sessions of one kind of use."""

    @property
    def name(self) -> str:
        """Such as `chatbot`."""
        ...

    @property
    def label(self) -> str:
        """The name, with how lengths were changed: what the sessions are called."""
        ...

    def make_session(
        self,
        *,
        session_id: str,
        arrival_s: float,
        tenant: str,
        user: str,
        rng: random.Random,
        lengths: tuple[int, int] | None = None,
    ) -> Session:
        """One session.

        With `lengths`, prompt and output tokens of a trace's row, the first turn has those.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How lengths are made to fit a machine smaller than the one the lengths come from."""

    length_scale: float = 1.0
    """All lengths times this."""
    prompt_tokens_max: int | None = None
    """No prompt is longer, what a conversation carries on included."""
    output_tokens_max: int | None = None
    """No output is longer, thinking included."""

    def __post_init__(self) -> None:
        if not 0 < self.length_scale < math.inf:
            raise ValueError(f"length_scale must be finite and > 0, is {self.length_scale}")
        for name in ("prompt_tokens_max", "output_tokens_max"):
            cap = getattr(self, name)
            if cap is not None and cap < 1:
                raise ValueError(f"{name} must be at least 1, is {cap}")

    @property
    def label(self) -> str:
        """Empty if nothing is changed, else such as ` (lengths x0.1, prompt <= 3000)`."""
        parts = []
        if self.length_scale != 1:
            parts.append(f"lengths x{self.length_scale:g}")
        if self.prompt_tokens_max is not None:
            parts.append(f"prompt <= {self.prompt_tokens_max}")
        if self.output_tokens_max is not None:
            parts.append(f"output <= {self.output_tokens_max}")
        return f" ({', '.join(parts)})" if parts else ""

    def scaled(self, tokens: int) -> int:
        """A length, uncapped."""
        return max(1, round(tokens * self.length_scale))

    def prompt(self, tokens: int) -> int:
        """A prompt's length, scaled and cut."""
        return _cut(self.scaled(tokens), self.prompt_tokens_max)

    def output(self, tokens: int) -> int:
        """An output's length, scaled and cut."""
        return _cut(self.scaled(tokens), self.output_tokens_max)

    def draw(self, pair: LengthPair, rng: random.Random) -> tuple[int, int]:
        """Prompt and output tokens that fit."""
        if not self.label:
            return pair.draw(rng)
        return ScaledPair(
            pair=pair,
            scale=self.length_scale,
            prompt_tokens_max=self.prompt_tokens_max,
            output_tokens_max=self.output_tokens_max,
        ).draw(rng)

    def allows_prompt(self, tokens: int) -> bool:
        """Whether a prompt of this length fits."""
        return self.prompt_tokens_max is None or tokens <= self.prompt_tokens_max


AS_IS = Fit()


def _cut(tokens: int, most: int | None) -> int:
    return tokens if most is None else min(tokens, most)


def opening(
    prompt_tokens: int, *, shared_tokens: int, shared_key: str, session_id: str
) -> tuple[Segment, ...]:
    """A first prompt: the beginning that all share, then the user's own text.

    The shared part counts towards the prompt's length; a prompt too short for it goes without.
    """
    own = Segment(f"{session_id}/0", prompt_tokens)
    if not 0 < shared_tokens < prompt_tokens:
        return (own,)
    return (Segment(shared_key, shared_tokens), Segment(own.key, prompt_tokens - shared_tokens))


def rounds(mean: float, most: int, rng: random.Random) -> int:
    """How many, 1 to `most`: after each there is another with the same chance (geometric)."""
    count, again = 1, 1 - 1 / mean
    while count < most and again and rng.random() < again:
        count += 1
    return count


def check_rounds(prefix: str, mean: float, most: int) -> None:
    """Raises ValueError unless 1 <= mean <= most."""
    if not 1 <= mean <= most < 10_000:
        raise ValueError(
            f"1 <= {prefix}_mean <= {prefix}_max < 10000 must hold, got {mean} and {most}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationScenario:
    """A person asks, reads the answer, and perhaps asks on: chatbot, coder, summarization."""

    name: str
    slo: SloClass
    lengths: LengthPair
    """Of the first turn; later answers have its output lengths."""
    readers: ReaderPopulation = DEFAULT_READERS
    fit: Fit = AS_IS
    shared_prefix_tokens: int = 0
    """A system prompt that all sessions of a tenant begin with; part of the prompt's length."""
    turns_mean: float = 1.0
    """Mean of the geometric number of turns, before `turns_max` and a full context cut it.
    1: a trace's rows are requests, each with its whole context, and have no known follow-up."""
    turns_max: int = 20
    followup: Lengths | None = None
    """What later turns add, tokens; None: as first messages in ShareGPT."""

    def __post_init__(self) -> None:
        check_rounds("turns", self.turns_mean, self.turns_max)
        if self.shared_prefix_tokens < 0:
            raise ValueError(f"shared_prefix_tokens must be >= 0, is {self.shared_prefix_tokens}")

    @property
    def label(self) -> str:
        """The name, with how lengths were changed."""
        return self.name + self.fit.label

    def make_session(
        self,
        *,
        session_id: str,
        arrival_s: float,
        tenant: str,
        user: str,
        rng: random.Random,
        lengths: tuple[int, int] | None = None,
    ) -> Session:
        """One conversation."""
        reader = self.readers.draw(rng)
        if lengths is None:
            prompt_tokens, output_tokens = self.fit.draw(self.lengths, rng)
        else:
            prompt_tokens, output_tokens = self.fit.prompt(lengths[0]), self.fit.output(lengths[1])
        shared_tokens = self.shared_prefix_tokens and self.fit.scaled(self.shared_prefix_tokens)
        segments = opening(
            prompt_tokens,
            shared_tokens=shared_tokens,
            shared_key=f"{tenant}/{self.name}/system",
            session_id=session_id,
        )
        turns = [Turn(segments=segments, output_tokens=output_tokens, slo=self.slo)]
        context_tokens = prompt_tokens + output_tokens
        for index in range(1, rounds(self.turns_mean, self.turns_max, rng)):
            turn = self._followup(f"{session_id}/{index}", rng)
            context_tokens += turn.own_tokens
            if not self.fit.allows_prompt(context_tokens):
                break
            turns.append(turn)
            context_tokens += turn.output_tokens
        return Session(
            session_id=session_id,
            arrival_s=arrival_s,
            scenario=self.label,
            tenant=tenant,
            user=user,
            reader=reader,
            turns=tuple(turns),
        )

    def _followup(self, key: str, rng: random.Random) -> Turn:
        followup = self.followup or load_fitted("sharegpt").pair.prompt
        tokens = self.fit.prompt(followup.draw(rng))
        _, output_tokens = self.fit.draw(self.lengths, rng)
        return Turn(
            segments=(Segment(key, tokens),),
            output_tokens=output_tokens,
            carries_context=True,
            pause_s=self.readers.draw_think_s(rng),
            slo=self.slo,
        )


def chatbot(*, large: bool = False) -> ConversationScenario:
    """Chat. Ref: [SLOs-Serve] lengths of Azure's conversations of 2023."""
    return ConversationScenario(
        name="chatbot",
        slo=slo_class("chatbot", large=large),
        lengths=load_fitted("azure2023-conv"),
        readers=CHAT_READERS,
    )


def coder(*, large: bool = False) -> ConversationScenario:
    """Code completion. Ref: [SLOs-Serve] lengths of Azure's code of 2023."""
    return ConversationScenario(
        name="coder",
        slo=slo_class("coder", large=large),
        lengths=load_fitted("azure2023-code"),
    )


def summarization(*, large: bool = False) -> ConversationScenario:
    """A long text in, its summary out. Ref: [SLOs-Serve] arXiv summarization."""
    return ConversationScenario(
        name="summarization",
        slo=slo_class("summarization", large=large),
        lengths=load_fitted("arxiv-summarization"),
        readers=LONG_TEXT_READERS,
    )
