"""How much speculation each request is worth: how many drafted tokens to verify in an iteration.

While prompts wait, the solver of `speculation` says how long the iteration should be so that most
prompt tokens fit beside readers who keep their pace. While nobody waits, drafts are as long as
makes most tokens a second. Both go by what was accepted so far, and by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field, replace
from functools import lru_cache

from readahead.core.config import require
from readahead.core.latency.budget import tokens_within
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.speculation import PaceClass, plan_drafts

ACCEPTANCE = 0.6
"""Of an engine that has verified nothing yet; SLOs-Serve's default."""
PRIOR_TOKENS = 4.0
"""By how many tokens' weight a request is taken for like the engine's others."""
MEMORY_TOKENS = 64.0
"""A token that was verified so many tokens ago counts 1/e: text becomes more or less predictable
on its way."""
PROBE_EVERY = 16
"""Of a request whose drafts are not worth it, one token is verified each so many iterations: it
may have become more predictable."""
WORTH = 0.3
"""Where no iteration-time model is known, a token is verified that is right with at least this
probability."""
_WORTHS = (0.7, 0.3, 0.1, 0.02)
"""Least probabilities that are tried: between two of them the best is within some per cent."""
_STEP = 0.05
"""Acceptances this close are one, so that work does not grow with the batch."""
_PACE_RATIO = 2.0
"""Readers' paces within this factor are one class: the solver's time grows with their square."""


@dataclass(slots=True)
class Acceptance:
    """Measures how probably a drafted token is right if all before it are."""

    accepted: float = 0.0
    tried: float = 0.0
    """Accepted ones, and the first refused of each draft: those behind it say nothing."""
    skipped: int = 0
    """Iterations since the last draft."""

    def observe(self, *, drafted: int, accepted: int) -> None:
        """One verification of so many drafted tokens.

        Raises:
            ValueError: not 0 <= accepted <= drafted.
        """
        if not 0 <= accepted <= drafted:
            raise ValueError(f"accepted must be from 0 to {drafted}, is {accepted}")
        tried = accepted + (accepted < drafted)
        kept = math.exp(-tried / MEMORY_TOKENS)
        self.accepted = self.accepted * kept + accepted
        self.tried = self.tried * kept + tried

    def estimate(self, prior: float) -> float:
        """The maximum-likelihood value, drawn towards `prior` while little is known."""
        return (self.accepted + PRIOR_TOKENS * prior) / (self.tried + PRIOR_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """What drafts are to be added to."""

    work: IterationWork
    """Without them."""
    tokens_max: int
    """Drafted tokens that fit in its budget."""
    latency: LatencyModel | None
    """None: nobody knows how long iterations take."""
    prompts_wait: bool
    """Whether time that is saved is used by somebody."""


@dataclass(slots=True, kw_only=True)
class DraftPlanner:
    """Keeps two numbers for each request that drafts. Whoever runs the engine tells it of what was
    accepted and who is gone."""

    draft_tokens_max: int
    """Longest draft; the token that the iteration makes anyhow does not count."""
    pooled: Acceptance = field(default_factory=Acceptance)
    """Of all requests."""
    _of: dict[Hashable, Acceptance] = field(default_factory=dict)
    _solved: tuple[object, float | None] = (None, None)

    def __post_init__(self) -> None:
        require("draft_tokens_max", self.draft_tokens_max, least=1, most=64)

    def __len__(self) -> int:
        return len(self._of)

    def observe(self, key: Hashable, *, drafted: int, accepted: int) -> None:
        """One of this request's drafts was verified."""
        if not drafted:
            return
        self.pooled.observe(drafted=drafted, accepted=accepted)
        self._of.setdefault(key, Acceptance()).observe(drafted=drafted, accepted=accepted)

    def forget(self, key: Hashable) -> None:
        """A request is gone."""
        self._of.pop(key, None)

    def acceptance(self, key: Hashable) -> float:
        """As measured so far, rounded to steps of 0.05."""
        return self._rates([key])[0]

    def lengths(self, decoding: Ordered[tuple[Hashable, float]], iteration: Iteration) -> list[int]:
        """How many drafted tokens to verify for each request that decodes.

        Args:
            decoding: each request's key and the seconds per token that its reader bears.
            iteration: what they are added to.
        """
        if not decoding:
            return []
        rates = self._rates([key for key, _ in decoding])
        length_s = self._solve(decoding, rates, iteration)
        if length_s is None:
            lengths = self._fastest(rates, iteration)
        else:
            lengths = [
                _shortest(length_s / token_s, rate, self.draft_tokens_max)
                for (_, token_s), rate in zip(decoding, rates, strict=True)
            ]
        for index, (key, _) in enumerate(decoding):
            lengths[index] = self._probed(key, lengths[index])
        return _fitted(lengths, iteration.tokens_max)

    def _rates(self, keys: list[Hashable]) -> list[float]:
        prior, of = self.pooled.estimate(ACCEPTANCE), self._of
        found = [of.get(key) for key in keys]
        return [_rounded(prior if each is None else each.estimate(prior)) for each in found]

    def _solve(
        self,
        decoding: Ordered[tuple[Hashable, float]],
        rates: list[float],
        iteration: Iteration,
    ) -> float | None:
        """How long the iteration should be, seconds; None where nobody waits, nobody knows, or
        nobody can keep his pace anyhow."""
        model = iteration.latency
        if model is None or not iteration.prompts_wait:
            return None
        fastest_s: dict[int, float] = {}
        counts: dict[int, int] = {}
        for _, token_s in decoding:
            pace = math.floor(math.log(token_s, _PACE_RATIO))
            fastest_s[pace] = min(fastest_s.get(pace, math.inf), token_s)
            counts[pace] = counts.get(pace, 0) + 1
        classes = [
            PaceClass(token_s=fastest_s[pace], requests=counts[pace]) for pace in sorted(counts)
        ]
        rate = _rounded(math.fsum(rates) / len(rates))
        question = (rate, iteration.work.past_tokens // 4096, classes, model)
        if question != self._solved[0]:
            self._solved = (question, self._solved_s(classes, rate, iteration, model))
        return self._solved[1]

    def _solved_s(
        self, classes: list[PaceClass], rate: float, iteration: Iteration, model: LatencyModel
    ) -> float | None:
        readers = IterationWork(
            tokens=0,
            requests=sum(each.requests for each in classes),
            past_tokens=iteration.work.past_tokens,
            prefill_pairs=0,
        )
        most = iteration.work.tokens + iteration.tokens_max

        def within(seconds: float, steps: int) -> int:
            return tokens_within(
                seconds, model=model, work=replace(readers, draft_steps=steps), most=most
            )

        plan = plan_drafts(
            classes,
            acceptance=rate,
            tokens_within=within,
            draft_tokens_max=self.draft_tokens_max + 1,
        )
        return plan.iteration_s if plan.prompt_tokens >= 0 else None

    def _fastest(self, rates: list[float], iteration: Iteration) -> list[int]:
        """The lengths that make most tokens a second; each as long as its tokens are worth it, and
        none longer than the longest that is worth its drafting."""
        model, work, most = iteration.latency, iteration.work, self.draft_tokens_max
        if model is None:
            return [_worthy(rate, WORTH, most) for rate in rates]
        counts: dict[float, int] = {}
        for rate in rates:
            counts[rate] = counts.get(rate, 0) + 1
        tried: dict[tuple[int, ...], None] = {
            tuple(_worthy(rate, worth, cap) for rate in counts): None
            for cap in range(most + 1)
            for worth in _WORTHS
        }

        def tok_s(lengths: tuple[int, ...]) -> float:
            made = math.fsum(
                n * _made(rate, k) for (rate, n), k in zip(counts.items(), lengths, strict=True)
            )
            drafted = sum(n * k for n, k in zip(counts.values(), lengths, strict=True))
            longer = replace(work, tokens=work.tokens + drafted, draft_steps=max(lengths))
            return made / iteration_s(longer, model=model)

        best = max(tried, key=tok_s)
        length_of = dict(zip(counts, best, strict=True))
        return [length_of[rate] for rate in rates]

    def _probed(self, key: Hashable, drafted: int) -> int:
        found = self._of.setdefault(key, Acceptance())
        found.skipped = 0 if drafted else found.skipped + 1
        if found.skipped < PROBE_EVERY:
            return drafted
        found.skipped = 0
        return 1


def _rounded(rate: float) -> float:
    return round(rate / _STEP) * _STEP


@lru_cache(maxsize=4096)
def _made(rate: float, drafted: int) -> float:
    return math.fsum(rate**n for n in range(drafted + 1))


@lru_cache(maxsize=4096)
def _worthy(rate: float, worth: float, most: int) -> int:
    """Tokens of a draft that are right with at least this probability."""
    drafted, right = 0, rate
    while drafted < most and right >= worth:
        drafted += 1
        right *= rate
    return drafted


@lru_cache(maxsize=4096)
def _shortest(tokens_wanted: float, rate: float, most: int) -> int:
    """The shortest draft that makes so many tokens in expectation; where none does, one of the
    tokens that are more probably right than not."""
    for drafted in range(most + 1):
        if _made(rate, drafted) >= tokens_wanted * (1 - 1e-9):
            return drafted
    return _worthy(rate, 0.5, most)


def _fitted(lengths: list[int], tokens_max: int) -> list[int]:
    """Cut to the budget, the longest first."""
    while sum(lengths) > max(0, tokens_max):
        longest = max(lengths)
        over = sum(lengths) - max(0, tokens_max)
        for index in range(len(lengths) - 1, -1, -1):
            if over and lengths[index] == longest:
                lengths[index] -= 1
                over -= 1
    return lengths
