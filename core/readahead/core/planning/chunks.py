"""What an iteration adds up to while it is put together."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.latency.budget import CHUNK_TOKENS_MAX, NO_WORK, tokens_within
from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s


@dataclass(slots=True, kw_only=True)
class WorkSum:
    """The sum of an iteration's entries so far."""

    tokens: int = 0
    requests: int = 0
    past_tokens: int = 0
    prefill_pairs: int = 0

    def add(self, computed: int, tokens: int) -> None:
        """Adds a sequence with so many tokens computed before, and so many in this iteration."""
        self.tokens += tokens
        self.requests += 1
        if tokens == 1:
            self.past_tokens += computed
        else:
            self.prefill_pairs += tokens * computed + tokens * (tokens + 1) // 2

    def work(self) -> IterationWork:
        """As the iteration-time model takes it."""
        return IterationWork(
            tokens=self.tokens,
            requests=self.requests,
            past_tokens=self.past_tokens,
            prefill_pairs=self.prefill_pairs,
        )

    def seconds(self, model: LatencyModel) -> float:
        """How long the iteration takes by the model."""
        return iteration_s(self.work(), model=model)

    def chunk_within(self, limit_s: float, computed: int, most: int, model: LatencyModel) -> int:
        """The longest chunk, up to `most` tokens, with which it takes `limit_s`; 0 for none."""
        if most < 1 or limit_s <= 0:
            return 0
        return tokens_within(
            limit_s, model=model, work=self.work(), before_tokens=computed, most=most
        )


def prefill_s(computed: int, tokens: int, model: LatencyModel) -> float:
    """Seconds that so many prompt tokens take alone, in one iteration."""
    return iteration_s(NO_WORK.with_chunk(tokens, before_tokens=computed), model=model)


def saturated_tokens(model: LatencyModel, *, waste: float) -> int:
    """So many prompt tokens alone take 1 + `waste` times what they add to a long iteration.

    More of them in an iteration hardly raise its throughput and keep everybody waiting; fewer
    waste its time on what does not grow with them. Their attention is not counted, since no
    length of an iteration spares it. At most CHUNK_TOKENS_MAX.
    """

    def seconds(tokens: int) -> float:
        work = IterationWork(tokens=tokens, requests=1, past_tokens=0, prefill_pairs=0)
        return iteration_s(work, model=model)

    most = CHUNK_TOKENS_MAX
    token_s = (seconds(most) - seconds(most // 2)) / (most - most // 2)
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if seconds(middle) <= (1 + waste) * token_s * middle:
            high = middle
        else:
            low = middle + 1
    return low
