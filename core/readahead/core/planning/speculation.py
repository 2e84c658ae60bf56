"""How long drafts should be: per class of pace, so that most prompt tokens fit beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from readahead.core.config import require

DRAFT_TOKENS_MAX = 10
"""Longest draft that is considered; the source's default."""

TokensWithin = Callable[[float, int], int]
"""Tokens that an iteration of so many seconds can verify with drafts of at most so many steps."""

_TIE = 1e-12
"""Relative difference below which two times per token are one: they are sums of powers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceClass:
    """Requests that decode at one pace."""

    token_s: float
    """Longest mean time per output token that they bear."""
    requests: int

    def __post_init__(self) -> None:
        require("token_s", self.token_s, least=1e-9)
        require("requests", self.requests, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPlan:
    """What to verify for each class, and what is left for prompts."""

    draft_tokens: tuple[int, ...]
    """Tokens to verify for each request of a class, the first of which needs no draft."""
    iteration_s: float
    """At which every class keeps its pace, in expectation."""
    prompt_tokens: int
    """That fit in such an iteration beside them; negative where not even the drafts fit."""

    @property
    def prompt_tok_s(self) -> float:
        """Prompt tokens a second."""
        return self.prompt_tokens / self.iteration_s


def tokens_per_verification(draft_tokens: int, *, acceptance: float) -> float:
    """Expected tokens that one verification of so many yields, each right with this probability
    if all before it are: Acc(sl) = (1 - a^sl) / (1 - a), a being `acceptance`.

    Ref: [SLOs-Serve] Acc.

    Raises:
        ValueError: `draft_tokens` is below 1, or `acceptance` is not within 0..1.
    """
    require("draft_tokens", draft_tokens, least=1)
    require("acceptance", acceptance, least=0, most=1)
    return math.fsum(acceptance**step for step in range(draft_tokens))


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftChoice:
    """An iteration's length that may be the best one, whoever decodes."""

    iteration_s: float
    draft_tokens: tuple[int, ...]
    """By pace, the fewest to verify with which it is kept; 0 where no length keeps it."""


def draft_choices(
    paces_s: Sequence[float], *, acceptance: float, draft_tokens_max: int = DRAFT_TOKENS_MAX
) -> tuple[DraftChoice, ...]:
    """What `plan_drafts` tries, for requests of any of these times per token.

    It depends on nothing else, so that who plans often makes it once. Of those who decode, each
    must have a length; where one has not, the choice is none.

    Raises:
        ValueError: `draft_tokens_max` is below 1, or `acceptance` is not within 0..1.
    """
    require("draft_tokens_max", draft_tokens_max, least=1)
    yields = _yields(acceptance, draft_tokens_max)
    bounds = sorted({pace_s * each for pace_s in paces_s for each in yields})
    return tuple(
        DraftChoice(
            iteration_s=bound,
            draft_tokens=tuple(_shortest(yields, pace_s, bound) for pace_s in paces_s),
        )
        for bound in bounds
    )


def plan_drafts(
    classes: Sequence[PaceClass],
    *,
    acceptance: float,
    tokens_within: TokensWithin,
    draft_tokens_max: int = DRAFT_TOKENS_MAX,
) -> DraftPlan:
    """The lengths that leave most prompt tokens a second.

    One class binds the iteration's time: T = token_s · Acc(its length). Every other takes the
    shortest length with which it bears T, since longer ones only cost. So it is enough to try
    each class with each length: O(classes² · draft_tokens_max²).

    Args:
        classes: at least one; those without requests do not count.
        acceptance: probability that a drafted token is right.
        tokens_within: grows with its seconds and does not with its steps.
        draft_tokens_max: longest length.

    Ref: [SLOs-Serve] SLO-adaptive speculative decoding.
    Differs: Acc is not rounded down. Ties go to the shorter longest draft, then to the fewer
        tokens.

    Raises:
        ValueError: no class has requests, or `draft_tokens_max` is below 1.
    """
    require("draft_tokens_max", draft_tokens_max, least=1)
    if not any(each.requests for each in classes):
        raise ValueError("classes must have at least one request")
    yields = _yields(acceptance, draft_tokens_max)
    found = [
        plan
        for bound in sorted({c.token_s * each for c in classes if c.requests for each in yields})
        if (plan := _within(bound, classes, yields, tokens_within)) is not None
    ]
    return max(found, key=_merit)


def _yields(acceptance: float, draft_tokens_max: int) -> list[float]:
    return [
        tokens_per_verification(length, acceptance=acceptance)
        for length in range(1, draft_tokens_max + 1)
    ]


def _shortest(yields: list[float], token_s: float, iteration_s: float) -> int:
    """The fewest tokens to verify with which so long an iteration is borne; 0 for none."""
    least = iteration_s * (1 - _TIE)
    return next((n for n, tokens in enumerate(yields, 1) if token_s * tokens >= least), 0)


def _within(
    iteration_s: float,
    classes: Sequence[PaceClass],
    yields: list[float],
    tokens_within: TokensWithin,
) -> DraftPlan | None:
    """The shortest lengths that bear such iterations; None where some class cannot."""
    lengths = []
    for each in classes:
        length = _shortest(yields, each.token_s, iteration_s) if each.requests else 1
        if not length:
            return None
        lengths.append(length)
    return planned(classes, lengths, iteration_s=iteration_s, tokens_within=tokens_within)


def planned(
    classes: Sequence[PaceClass],
    lengths: Sequence[int],
    *,
    iteration_s: float,
    tokens_within: TokensWithin,
) -> DraftPlan:
    """What these lengths leave for prompts in such an iteration."""
    longest = max(n for n, each in zip(lengths, classes, strict=True) if each.requests)
    used = sum(n * each.requests for n, each in zip(lengths, classes, strict=True))
    return DraftPlan(
        draft_tokens=tuple(lengths),
        iteration_s=iteration_s,
        prompt_tokens=tokens_within(iteration_s, longest - 1) - used,
    )


def _merit(plan: DraftPlan) -> tuple[float, int, int]:
    return (plan.prompt_tok_s, -max(plan.draft_tokens), -sum(plan.draft_tokens))
