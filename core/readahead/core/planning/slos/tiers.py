"""What the admission of SLOs-Serve is asked about. All times are seconds from now."""

from __future__ import annotations

from dataclasses import dataclass

from readahead.core.config import require
from readahead.core.request import RequestId

Counts = tuple[int, ...]
"""Requests that decode, by tier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A request whose prompt is not computed yet."""

    request_id: RequestId
    due_s: float
    """When its prompt must be computed; from then on it decodes at the pace of its tier."""
    prompt_tokens: int
    """Still to compute."""
    before_tokens: int = 0
    """Of its prompt, computed or cached already."""
    blocks: int
    """KV blocks that it still needs, those of its whole answer included."""
    tier: int
    """Index of its tier."""
    value: float = 1.0
    """What it is worth to accept it; counts for new requests only."""

    def __post_init__(self) -> None:
        require("prompt_tokens", self.prompt_tokens, least=1)
        require("before_tokens", self.before_tokens, least=0)
        require("blocks", self.blocks, least=0)
        require("value", self.value, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What runs already, and must be kept, and what is free."""

    tiers: tuple[float, ...]
    """Longest time per output token of each tier, seconds, ascending."""
    decoding: Counts
    """Requests that decode now; each one's next token is due a tier's time from now."""
    prompts: tuple[Prompt, ...] = ()
    """Requests that were accepted and whose prompts are not computed yet."""
    blocks_free: int
    """KV blocks that no accepted request holds; those of best-effort ones are free."""
    context_tokens: int
    """KV tokens that a decoding request reads, on average over any batch; rather too many."""

    def __post_init__(self) -> None:
        if not self.tiers or list(self.tiers) != sorted(set(self.tiers)) or self.tiers[0] <= 0:
            raise ValueError(f"tiers must be positive and ascend, are {self.tiers}")
        if len(self.decoding) != len(self.tiers) or min(self.decoding) < 0:
            raise ValueError(f"decoding must have a count for each tier, is {self.decoding}")
        require("context_tokens", self.context_tokens, least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """Speculation: how often a drafted token is right, and how long drafts may be."""

    acceptance: float
    draft_tokens_max: int = 10

    def __post_init__(self) -> None:
        require("acceptance", self.acceptance, least=0, most=1)
        require("draft_tokens_max", self.draft_tokens_max, least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Batches of equal length, one after the other, beside whose decodes prompts are computed."""

    start_s: float
    end_s: float
    counts: Counts
    """Who decodes in it."""
    batches: int
    draft_tokens: tuple[int, ...] | None = None
    """Tokens to verify for each request of a tier in each batch; None without speculation: then
    a request gets one token in some of the batches."""

    @property
    def batch_s(self) -> float:
        """Length of each batch, seconds."""
        return (self.end_s - self.start_s) / self.batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A request that is kept, and when its prompt will be computed."""

    request_id: RequestId
    due_s: float
    """As asked; later only for one that ran already and cannot be in time any more."""
    ready_s: float
    """End of the segment by which the plan has it computed; it decodes from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Whom to accept, and how all promises are kept. Prompts are computed first due first; of those
    due together, first ready first."""

    accepted: tuple[Promise, ...]
    """Of the new requests; the others are declined."""
    kept: tuple[Promise, ...]
    """Of the prompts that were accepted before, every one; () where `is_overloaded`."""
    segments: tuple[Segment, ...]
    rest: Segment | None
    """What may be repeated for ever after the last segment; None where nobody decodes."""
    value: float
    is_greedy: bool = False
    """The search met its limit; the accepted set is the greedy rule's."""
    is_overloaded: bool = False
    """What runs cannot keep its pace, whoever else is declined: nobody is accepted."""
    steps: int = 0
    """States that the search looked at."""
