"""An answer in pieces: what each of its tokens costs at least, and when it can be there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from readahead.sim.bound.known import KnownRequest
from readahead.sim.bound.rates import Line, Rates

PROMPT_PART_TOKENS, PROMPT_PARTS_MAX = 2048, 6
"""A longer prompt is in parts: its attention, which grows along it, is counted from their starts
on. Shorter ones are not worth the columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens `first` to `last` of one answer, counted from 1; the first token stands alone, and
    where its prompt is long, in several pieces: parts of the prompt, each counted as one token."""

    request: int
    """Its place among the requests."""
    first: int
    last: int
    is_read: bool
    entries: float
    """In iterations, for each token of the piece."""
    computed_tokens: float
    """Tokens computed for each: the prompt's for the first, else itself."""
    past_tokens: int
    """KV tokens read for each, of a part of a prompt those before it."""
    kv_tokens: float
    """KV tokens held in the iteration that makes it."""
    step_s: float
    """What each takes at least, hence lie apart; of the first token, what its prompt takes."""
    first_s: float
    """When token `first` can be there."""

    @property
    def tokens(self) -> int:
        """How many there are."""
        return self.last - self.first + 1

    @property
    def last_s(self) -> float:
        """When token `last` can be there."""
        return self.first_s + (self.tokens - 1) * self.step_s


def pieces_of(index: int, request: KnownRequest, rates: Rates, *, parts: int) -> tuple[Piece, ...]:
    """The first token, then the rest of what is thought, then of what is read in so many parts.

    Proof of the costs: each token but the first takes an iteration with its request as an entry;
    token k reads the KV of the prompt and of k - 2 tokens before (or has it computed again, see
    Line.next_s), those of a piece no less than its first. The batch is in blocks that its entries
    own, so that it holds at most the KV memory: for token k, k - 1 tokens and the prompt.
    """
    prompt_tokens, thinking = request.prompt_tokens, request.thinking_tokens
    found = _prompt(index, request, rates)
    for first, last in _spans(thinking, request.output_tokens, parts):
        past_tokens = prompt_tokens + first - 2
        step_s = rates.step_s(past_tokens)
        found.append(
            Piece(
                request=index,
                first=first,
                last=last,
                is_read=request.has_reader and first > thinking,
                entries=1.0,
                computed_tokens=1.0,
                past_tokens=past_tokens,
                kv_tokens=past_tokens + 1,
                step_s=step_s,
                first_s=found[-1].last_s + step_s,
            )
        )
    return tuple(found)


def token_s(line: Line, piece: Piece, rates: Rates) -> float:
    """Seconds that each token of a piece adds to a line, beside iterations."""
    entry_s = line.entry_s * piece.entries
    if piece.first == 1:
        attention_s = min(line.pair_s, line.past_token_s) * piece.past_tokens
        return entry_s + (line.token_s + attention_s) * piece.computed_tokens
    return entry_s + line.next_s(piece.past_tokens, has_prefix_cache=rates.has_prefix_cache)


def _prompt(index: int, request: KnownRequest, rates: Rates) -> list[Piece]:
    """The prompt in equal parts, of which the last makes the first token.

    Proof: a chunk is one entry, which holds the prompt's KV, and has some of the prompt's tokens:
    counted by that share, no sum is more than it is. A token attends to all before its part.
    """
    tokens = rates.computed_tokens(request.prompt_tokens)
    parts = min(PROMPT_PARTS_MAX, 1 + tokens // PROMPT_PART_TOKENS)
    return [
        Piece(
            request=index,
            first=1,
            last=1,
            is_read=request.has_reader and not request.thinking_tokens and part == parts - 1,
            entries=1 / parts,
            computed_tokens=tokens / parts,
            past_tokens=tokens * part // parts,
            kv_tokens=request.prompt_tokens / parts,
            step_s=rates.prompt_step_s(request.prompt_tokens) / parts,
            first_s=request.arrival_s + rates.first_token_s(request.prompt_tokens),
        )
        for part in range(parts)
    ]


def _spans(thinking: int, output: int, parts: int) -> list[tuple[int, int]]:
    """First and last tokens after the first: what is thought, then equal parts of what is read."""
    start = min(output, max(1, thinking))
    spans = [(2, start)] if start > 1 else []
    parts = min(parts, output - start)
    cuts = [start + (output - start) * part // parts for part in range(parts + 1)] if parts else []
    return spans + [(low + 1, high) for low, high in pairwise(cuts)]
