"""Continuous batching over paged KV blocks: what runs in the next iteration, and where KV is.

Pure of time and I/O. First come, first served; running requests before waiting ones; prompts in
chunks of what is left of an iteration's token budget. A request is let in when the blocks of all
its known tokens are free, and gets more as it grows. When none is free the latest running request
gives up its blocks and is recomputed later, as vLLM does: a reservation of the longest output
would admit fewer requests than a real engine does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from readahead.core.latency.iteration import IterationWork


@dataclass(slots=True, eq=False, kw_only=True)
class Sequence:
    """A leg in the engine. Its KV is `computed` tokens in `blocks` blocks."""

    prompt_tokens: int
    output_tokens_max: int
    is_pulled: bool = False
    """Its prompt's KV comes from another worker."""
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    is_ended: bool = False

    @property
    def known(self) -> int:
        """Tokens whose KV is needed before the next one can be made."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One iteration: for each sequence in it, how many tokens to compute."""

    entries: tuple[tuple[Sequence, int], ...]
    pulls: tuple[Sequence, ...]
    """Those whose blocks are there and whose KV is to be pulled now."""
    work: IterationWork


@dataclass(slots=True, kw_only=True)
class Batch:
    """The scheduler's state."""

    kv_blocks: int
    block_tokens: int
    requests_max: int
    batch_tokens_max: int
    blocks_free: int = 0
    running: list[Sequence] = field(default_factory=list)
    pulling: list[Sequence] = field(default_factory=list)
    waiting: deque[Sequence] = field(default_factory=deque)
    preemptions: int = 0

    def __post_init__(self) -> None:
        self.blocks_free = self.kv_blocks

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold the KV of so many tokens."""
        return -(-tokens // self.block_tokens)

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence at the end of the queue."""
        self.waiting.append(sequence)

    def plan(self) -> Plan:
        """Chooses the next iteration and takes the blocks that it needs."""
        entries: list[tuple[Sequence, int]] = []
        budget, preemptions = self.batch_tokens_max, self.preemptions
        index = 0
        while index < len(self.running) and budget > 0:
            sequence = self.running[index]
            tokens = min(sequence.known - sequence.computed, budget)
            if self._grow(sequence, sequence.computed + tokens):
                entries.append((sequence, tokens))
                budget -= tokens
            index += 1
        pulls: list[Sequence] = []
        while self._can_admit() and self.preemptions == preemptions:
            sequence = self.waiting[0]
            if budget == 0 and not sequence.is_pulled:
                break
            if not self._take(sequence, self.blocks_for(sequence.known) - sequence.blocks):
                break
            self.waiting.popleft()
            if sequence.is_pulled:
                self.pulling.append(sequence)
                pulls.append(sequence)
                continue
            tokens = min(sequence.known, budget)
            self.running.append(sequence)
            entries.append((sequence, tokens))
            budget -= tokens
        return Plan(entries=tuple(entries), pulls=tuple(pulls), work=_work(entries))

    def commit(self, plan: Plan) -> list[Sequence]:
        """Counts the iteration as done. Returns the sequences that made a token."""
        made: list[Sequence] = []
        for sequence, tokens in plan.entries:
            if sequence.is_ended:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.known:
                sequence.generated += 1
                made.append(sequence)
        return made

    def pulled(self, sequence: Sequence, *, has_kv: bool) -> None:
        """Lets a sequence run once its pull is over; without its KV the prompt is computed here.

        The last prompt token is computed here in any case, for its output.
        """
        self.pulling.remove(sequence)
        sequence.is_pulled = False
        sequence.computed = sequence.prompt_tokens - 1 if has_kv else 0
        self.running.append(sequence)

    def end(self, sequence: Sequence) -> None:
        """Takes a sequence out, whatever it does, and frees its blocks."""
        if sequence.is_ended:
            return
        sequence.is_ended = True
        for place in (self.running, self.pulling, self.waiting):
            if sequence in place:
                place.remove(sequence)
        self.give(sequence.blocks)
        sequence.blocks = 0

    def end_keeping_kv(self, sequence: Sequence) -> int:
        """Takes a running sequence out. Returns the blocks of its prompt, for the caller to give
        back."""
        kept = min(sequence.blocks, self.blocks_for(sequence.prompt_tokens))
        sequence.blocks -= kept
        self.end(sequence)
        return kept

    def give(self, blocks: int) -> None:
        """Frees blocks."""
        self.blocks_free += blocks

    def check(self, *, held_blocks: int) -> None:
        """Asserts that each block is free, held by a handover, or owned by one sequence."""
        owned = sum(s.blocks for s in (*self.running, *self.pulling, *self.waiting))
        assert 0 <= self.blocks_free <= self.kv_blocks, self.blocks_free
        assert self.blocks_free + owned + held_blocks == self.kv_blocks
        assert len(self.running) + len(self.pulling) <= self.requests_max
        for sequence in self.running:
            assert sequence.computed <= sequence.known
            assert sequence.blocks >= self.blocks_for(sequence.computed)
        assert all(s.blocks == 0 for s in self.waiting)

    def _can_admit(self) -> bool:
        return bool(self.waiting) and len(self.running) + len(self.pulling) < self.requests_max

    def _take(self, sequence: Sequence, blocks: int) -> bool:
        if blocks > self.blocks_free:
            return False
        self.blocks_free -= blocks
        sequence.blocks += blocks
        return True

    def _grow(self, sequence: Sequence, tokens: int) -> bool:
        """Gives a running sequence blocks for so many tokens, at the cost of the latest ones."""
        while not self._take(sequence, max(0, self.blocks_for(tokens) - sequence.blocks)):
            victim = self.running.pop()
            self.give(victim.blocks)
            victim.blocks = victim.computed = 0
            self.waiting.appendleft(victim)
            self.preemptions += 1
            if victim is sequence:
                return False
        return True


def _work(entries: list[tuple[Sequence, int]]) -> IterationWork:
    tokens = past_tokens = prefill_pairs = 0
    for sequence, new in entries:
        tokens += new
        if new == 1:
            past_tokens += sequence.computed
        else:
            prefill_pairs += new * sequence.computed + new * (new + 1) // 2
    return IterationWork(
        tokens=tokens,
        requests=len(entries),
        past_tokens=past_tokens,
        prefill_pairs=prefill_pairs,
    )
