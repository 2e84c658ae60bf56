"""A model that thinks first; nobody reads that, everybody waits for it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from readahead.workload.lengths import QuantileTable
from readahead.workload.lengths_fitted import load_fitted
from readahead.workload.lengths_joint import LengthPair
from readahead.workload.readers import DEFAULT_READERS, ReaderPopulation
from readahead.workload.scenarios import AS_IS, Fit, opening
from readahead.workload.scenarios_slo import slo_class
from readahead.workload.session import Session, Turn
from readahead.workload.slo import SloClass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningScenario:
    """One question; the output is thinking, then at least one token of answer."""

    slo: SloClass
    lengths: LengthPair
    """Outputs include the thinking."""
    thinking_share: QuantileTable
    """Of the output, 0..1. Taken as independent of its length: how they hang together is not
    published."""
    name: str = "reasoning"
    readers: ReaderPopulation = DEFAULT_READERS
    fit: Fit = AS_IS
    shared_prefix_tokens: int = 0
    """A system prompt that all sessions of a tenant begin with; part of the prompt's length."""

    def __post_init__(self) -> None:
        low, high = self.thinking_share.values[0], self.thinking_share.values[-1]
        if not 0 <= low <= high <= 1:
            raise ValueError(f"thinking_share must be within 0..1, goes from {low} to {high}")
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
        """One question."""
        reader = self.readers.draw(rng)
        if lengths is None:
            prompt_tokens, output_tokens = self.fit.draw(self.lengths, rng)
        else:
            prompt_tokens, output_tokens = self.fit.prompt(lengths[0]), self.fit.output(lengths[1])
        share = self.thinking_share.at(rng.random())
        turn = Turn(
            segments=opening(
                prompt_tokens,
                shared_tokens=self.shared_prefix_tokens
                and self.fit.scaled(self.shared_prefix_tokens),
                shared_key=f"{tenant}/{self.name}/system",
                session_id=session_id,
            ),
            output_tokens=output_tokens,
            thinking_tokens=min(round(share * output_tokens), output_tokens - 1),
            slo=self.slo,
        )
        return Session(
            session_id=session_id,
            arrival_s=arrival_s,
            scenario=self.label,
            tenant=tenant,
            user=user,
            reader=reader,
            turns=(turn,),
        )


def reasoning(*, large: bool = False) -> ReasoningScenario:
    """Lengths and share of thinking of DeepSeek-R1 as served in ServeGen's traces."""
    fitted = load_fitted("deepseek-r1")
    if fitted.thinking_share is None:
        raise ValueError("fitted lengths deepseek-r1 have no thinking_share")
    return ReasoningScenario(
        slo=slo_class("reasoning", large=large),
        lengths=fitted,
        thinking_share=fitted.thinking_share,
    )
