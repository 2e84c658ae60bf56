"""Continuous batching over paged KV blocks: what runs in the next iteration, and where KV is.

Pure of time and I/O; a policy says whom to serve. A sequence is let in when the blocks of all its
known tokens are free, and gets more as it grows. When none is free, another running sequence
gives up its blocks and is recomputed later, as vLLM does: a reservation of the longest output
would admit fewer requests than a real engine does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from readahead.core.latency.iteration import IterationWork
from readahead.core.planning.host_memory import HostMemory
from readahead.core.planning.policy import (
    BatchPolicy,
    Choice,
    Copies,
    EngineLimits,
    EngineView,
    Plan,
)
from readahead.core.planning.sequence import Sequence


@dataclass(slots=True)
class _Draft:
    """A plan while it is being made."""

    choice: Choice
    budget: int
    entries: list[tuple[Sequence, int]] = field(default_factory=list)
    pulls: list[Sequence] = field(default_factory=list)
    taken: set[Sequence] = field(default_factory=set)
    is_open: bool = True
    """Whether those that wait may still be let in."""
    is_steady: bool = True
    """Whether nothing happened but that each entry decodes, or goes on with its prompt."""
    chunks_left: int = 1 << 30
    """How often the chunks can be repeated before the first of their prompts ends."""

    def goes_on(self, sequence: Sequence, tokens: int) -> None:
        """An entry that computes its prompt: the next iteration is like this one, or is not."""
        chunks = (sequence.missing - 1) // tokens
        if self.choice.chunks_hold and chunks and tokens > 1:
            self.chunks_left = min(self.chunks_left, chunks)
        else:
            self.is_steady = False


@dataclass(slots=True, kw_only=True)
class Batch:
    """The scheduler's state. Between `plan` and `commit` sequences may end, but not be planned."""

    limits: EngineLimits
    policy: BatchPolicy
    """May be exchanged between a commit and the next plan."""
    host: HostMemory | None = None
    """None: nobody can be parked."""
    blocks_free: int = 0
    running: list[Sequence] = field(default_factory=list)
    pulling: list[Sequence] = field(default_factory=list)
    waiting: list[Sequence] = field(default_factory=list)
    preemptions: int = 0
    recomputed_tokens: int = 0
    """Tokens whose KV was given up in preemptions."""

    def __post_init__(self) -> None:
        self.blocks_free = self.limits.kv_blocks

    def add(self, sequence: Sequence) -> None:
        """Puts a new sequence at the end of the queue.

        Raises:
            ValueError: its `cached_tokens` are not within 0..prompt_tokens - 1.
        """
        if not 0 <= sequence.cached_tokens < sequence.prompt_tokens:
            raise ValueError(
                f"cached_tokens must be from 0 to {sequence.prompt_tokens - 1}, "
                f"is {sequence.cached_tokens}"
            )
        self.waiting.append(sequence)

    def plan(self, now: float) -> Plan:
        """Asks the policy for the next iteration and takes the blocks that it needs.

        Raises:
            ValueError: the policy parks, though there is no host memory to park in.
        """
        host = self.host
        view = EngineView(
            limits=self.limits,
            blocks_free=self.blocks_free,
            running=self.running,
            waiting=self.waiting,
            pulling=len(self.pulling),
            parked=() if host is None else host.parked,
            host=None if host is None else host.room(),
        )
        choice = self.policy.choose(view, now)
        draft = _Draft(choice, self.limits.batch_tokens_max)
        for sequence in choice.preempt:
            if sequence.blocks:
                self._preempt(sequence)
                draft.is_steady = False
        copies = self._move(draft, now) if choice.park or choice.resume else None
        for sequence, tokens in choice.entries:
            if sequence in draft.taken:
                continue
            if sequence.blocks:
                self._run(draft, sequence, tokens)
            elif draft.is_open and not sequence.is_ended:
                self._let_in(draft, sequence, tokens)
        return Plan(
            entries=tuple(draft.entries),
            pulls=tuple(draft.pulls),
            work=_work(draft.entries),
            repeats_max=self._repeats_max(draft),
            copies=copies,
        )

    def commit(self, plan: Plan, *, iterations: int = 1) -> list[Sequence]:
        """Counts the plan as carried out so many times in a row.

        Returns the sequences that made tokens: one each, or `iterations` each where that is
        more than one. The blocks that they grow into are taken here; `plan` saw that they are
        free.

        Raises:
            ValueError: `iterations` is not within 1..plan.repeats_max.
        """
        if not 1 <= iterations <= plan.repeats_max:
            raise ValueError(f"iterations must be from 1 to {plan.repeats_max}, is {iterations}")
        if iterations > 1:
            return self._commit_many(plan, iterations)
        made: list[Sequence] = []
        for sequence, tokens in plan.entries:
            if sequence.is_ended:
                continue
            sequence.computed += tokens
            if sequence.computed == sequence.prompt_tokens + sequence.generated:
                sequence.generated += 1
                made.append(sequence)
        return made

    def blocks_free_after(self, plan: Plan, *, iterations: int) -> int:
        """Blocks that are free once a plan has been carried out so many times in a row."""
        if iterations == 1:
            return self.blocks_free
        size = self.limits.block_tokens
        grown = sum(
            max(0, -(-(s.computed + tokens * iterations) // size) - s.blocks)
            for s, tokens in plan.entries
            if not s.is_ended
        )
        return self.blocks_free - grown

    def pulled(self, sequence: Sequence, *, has_kv: bool) -> None:
        """Lets a sequence run once its pull is over; without its KV the prompt is computed here.

        The last prompt token is computed here in any case, for its output.
        """
        self.pulling.remove(sequence)
        sequence.is_pulled = False
        sequence.computed = sequence.prompt_tokens - 1 if has_kv else sequence.cached_tokens
        self.running.append(sequence)

    def saved(self, sequence: Sequence) -> None:
        """The copy of a parked sequence is made; its device blocks are free."""
        assert self.host is not None
        self.give(self.host.copied(sequence))

    def loaded(self, sequence: Sequence) -> None:
        """Lets one run on whose copy is back."""
        assert self.host is not None
        self.host.loaded(sequence)
        self.pulling.remove(sequence)
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
        if self.host is not None:
            self.give(self.host.forget(sequence))

    def end_keeping_kv(self, sequence: Sequence) -> int:
        """Takes a running sequence out. Returns the blocks of its prompt, for the caller to give
        back."""
        kept = min(sequence.blocks, self.limits.blocks_for(sequence.prompt_tokens))
        sequence.blocks -= kept
        self.end(sequence)
        return kept

    def give(self, blocks: int) -> None:
        """Frees blocks."""
        self.blocks_free += blocks

    def take(self, blocks: int) -> bool:
        """Takes free blocks for something that is no sequence; False where they are not there."""
        if blocks > self.blocks_free:
            return False
        self.blocks_free -= blocks
        return True

    def check(self, *, held_blocks: int) -> None:
        """Asserts that each block is free, held by caller or copy, or owned by one sequence."""
        if self.host is not None:
            self.host.check()
            held_blocks += self.host.blocks_coming
        owned = sum(s.blocks for s in (*self.running, *self.pulling, *self.waiting))
        assert 0 <= self.blocks_free <= self.limits.kv_blocks, self.blocks_free
        assert self.blocks_free + owned + held_blocks == self.limits.kv_blocks
        assert len(self.running) + len(self.pulling) <= self.limits.requests_max
        for sequence in self.running:
            assert sequence.computed < sequence.known
            assert sequence.blocks >= self.limits.blocks_for(sequence.computed)
        assert all(s.blocks == s.computed == 0 for s in self.waiting)

    def _run(self, draft: _Draft, sequence: Sequence, asked: int) -> None:
        """Takes a running sequence into the iteration."""
        missing = sequence.missing
        tokens = min(asked, missing, draft.budget)
        if tokens < 1:
            return
        short = -(-(sequence.computed + tokens) // self.limits.block_tokens) - sequence.blocks
        if short > 0 and not self._grow(draft, sequence, short):
            draft.is_steady = False
            return
        draft.entries.append((sequence, tokens))
        draft.taken.add(sequence)
        draft.budget -= tokens
        if missing > 1:
            draft.goes_on(sequence, tokens)

    def _grow(self, draft: _Draft, sequence: Sequence, blocks: int) -> bool:
        """Gives a running sequence blocks, at the cost of the victims, itself perhaps."""
        victims = iter(draft.choice.victims)
        while blocks > self.blocks_free:
            victim = next((v for v in victims if v.blocks and v not in draft.taken), None)
            if victim is None:
                return False
            self._preempt(victim)
            draft.is_open = draft.is_steady = False
            if victim is sequence:
                return False
        self.blocks_free -= blocks
        sequence.blocks += blocks
        return True

    def _let_in(self, draft: _Draft, sequence: Sequence, asked: int) -> None:
        """Takes a waiting sequence into the iteration, or has its KV pulled."""
        tokens = min(asked, sequence.missing, draft.budget)
        if tokens < 1 and not sequence.is_pulled:
            return
        if len(self.running) + len(self.pulling) >= self.limits.requests_max:
            draft.is_open = False
            return
        blocks = self.limits.blocks_for(sequence.known)
        if not self.take(blocks):
            draft.is_open = draft.choice.may_pass
            return
        sequence.blocks = blocks
        self.waiting.remove(sequence)
        draft.taken.add(sequence)
        if sequence.is_pulled:
            draft.is_steady = False
            self.pulling.append(sequence)
            draft.pulls.append(sequence)
            return
        sequence.computed = sequence.cached_tokens
        self.running.append(sequence)
        draft.entries.append((sequence, tokens))
        draft.budget -= tokens
        draft.goes_on(sequence, tokens)

    def _move(self, draft: _Draft, now: float) -> Copies:
        """Parks and resumes; who is copied, or was to be parked, takes no part in the iteration."""
        if self.host is None:
            raise ValueError(f"policy {self.policy.name} parks, and here is nowhere to park")
        copies = self.host.move(self, draft.choice, now)
        draft.is_steady = False
        draft.taken.update(self.host.parked, copies.back)
        draft.taken.update([park.sequence for park in draft.choice.park])
        return copies

    def _preempt(self, sequence: Sequence) -> None:
        """Takes a running sequence's KV; it waits, before all others, to be computed again."""
        self.running.remove(sequence)
        self.give(sequence.blocks)
        self.recomputed_tokens += sequence.computed
        sequence.blocks = sequence.computed = 0
        self.waiting.insert(0, sequence)
        self.preemptions += 1

    def _repeats_max(self, draft: _Draft) -> int:
        """How often the plan can be carried out before a block is lacking or the choice ends.

        A decoding sequence takes a block each `block_tokens` iterations; a prompt has all of its
        own. So many whole rounds fit as there are free blocks for all; of the next round only what
        comes before the first sequence that would get none.
        """
        if not draft.is_steady or not draft.entries or draft.choice.holds_for <= 1:
            return 1
        size, holds_for = self.limits.block_tokens, min(draft.choice.holds_for, draft.chunks_left)
        decoding = [sequence for sequence, tokens in draft.entries if tokens == 1]
        rounds, left = divmod(self.blocks_free, len(decoding)) if decoding else (holds_for, 0)
        if rounds * size >= holds_for:
            return holds_for
        crossings = [0] * size
        for sequence in decoding:
            crossings[-sequence.computed % size - 1] += 1
        repeats = rounds * size
        for crossing in crossings:  # those that are full after 1, 2, … tokens, then after 0 = size
            repeats += 1
            left -= crossing
            if left < 0:
                break
        return max(1, min(repeats, holds_for))

    def _commit_many(self, plan: Plan, iterations: int) -> list[Sequence]:
        size, made = self.limits.block_tokens, []
        for sequence, tokens in plan.entries:
            if sequence.is_ended:
                continue
            sequence.computed += tokens * iterations
            if tokens > 1:
                continue  # a prompt that goes on, in blocks that it has
            sequence.generated += iterations
            blocks = -(-sequence.computed // size)
            if blocks > sequence.blocks:
                self.blocks_free -= blocks - sequence.blocks
                sequence.blocks = blocks
            made.append(sequence)
        assert self.blocks_free >= 0, self.blocks_free
        return made


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
