"""A batch while it is filled, and whom it makes give way."""

from __future__ import annotations

from readahead.core.latency.iteration import IterationWork, LatencyModel, iteration_s
from readahead.core.planning.chunks import WorkSum
from readahead.core.planning.policy import EngineView
from readahead.core.planning.sequence import Sequence
from readahead.core.planning.slos.standing import Groups

Entry = tuple[Sequence, int]


class Filling:
    """What comes to the decodes that `work` holds, until `limit_s` is over.

    Best-effort ones are evicted, the last let in first, for who may take their place.
    """

    def __init__(
        self,
        view: EngineView,
        model: LatencyModel,
        groups: Groups,
        work: WorkSum,
        limit_s: float,
    ) -> None:
        self.chunks: list[Entry] = []
        """Of prompts."""
        self.preempt: list[Sequence] = []
        """Those who are evicted."""
        self.is_full = False
        """The time is over, or the tokens: no prompt can be computed on."""
        self.aged: Sequence | None = None
        """A best-effort one who is not evicted."""
        self._view, self._model, self._groups = view, model, groups
        self._work, self._limit_s = work, limit_s
        self._pulls: list[Entry] = []
        self._decodes: list[Entry] = []
        self._left = view.limits.batch_tokens_max - work.tokens
        self._free, self._room = view.blocks_free, view.room
        self._is_shut = False
        self._evictable: list[Sequence] | None = None

    def entries(self) -> list[Entry]:
        """All that was added: the aged one, those who are pulled, and chunks."""
        return [*self._decodes, *self._pulls, *self.chunks]

    def end_with(self, prompt: Sequence, left_s: float) -> None:
        """Ends the batch when this prompt is due, if it can be computed by then."""
        if left_s >= self._limit_s:
            return
        computed, missing = prompt.known - prompt.missing, prompt.missing
        if self._work.chunk_within(left_s, computed, missing, self._model) >= missing:
            self._limit_s = left_s

    def pull(self, sequence: Sequence) -> None:
        """Lets one in whose KV comes from elsewhere; if he has no room, nobody else comes in."""
        if self._is_shut or not self._has_room(sequence, may_evict=True, kept_blocks=0):
            self._is_shut = True
            return
        self._let_in(sequence)
        self._pulls.append((sequence, 0))

    def serve_aged(self, least_tokens: int) -> None:
        """A token for the aged one, or so many of his prompt; more where no other one waits."""
        sequence = self.aged
        assert sequence is not None
        if sequence.blocks and sequence.missing == 1:
            self._decodes.append((sequence, 1))
            self._work.add(sequence.computed, 1)
            self._left -= 1
            return
        was_shut = self._is_shut
        most = least_tokens if self._groups.prompts else sequence.missing
        self.prompt(sequence, may_evict=True, most=most, least=least_tokens)
        self.is_full, self._is_shut = False, was_shut

    def prompt(
        self,
        sequence: Sequence,
        *,
        may_evict: bool = False,
        kept_blocks: int = 0,
        most: int | None = None,
        least: int = 0,
    ) -> None:
        """Adds a chunk of a prompt, if there is time and room for it.

        No one that waits goes in after one that found no room.
        """
        if self.is_full or sequence in self.preempt or self._has(sequence):
            return
        is_new = not sequence.blocks
        if is_new and (self._is_shut or not self._has_room(sequence, may_evict, kept_blocks)):
            self._is_shut = True
            return
        computed, missing = sequence.known - sequence.missing, sequence.missing
        most = min(missing, self._left, missing if most is None else most)
        tokens = self._work.chunk_within(self._limit_s, computed, most, self._model)
        if tokens < 1 and not self._work.requests:
            tokens = most  # nobody decodes, so that nobody waits for it
        tokens = max(tokens, min(most, least))
        if tokens < 1:
            self.is_full = True
            return
        if is_new:
            self._let_in(sequence)
        self.chunks.append((sequence, tokens))
        self._work.add(computed, tokens)
        self._left -= tokens

    def decode(self, sequences: list[Sequence]) -> list[Entry]:
        """A token for as many of these as there is time for, in order; for all of them where
        nobody is kept waiting. Returns their entries, which are not among `entries`."""
        fitting = [s for s in sequences if s is not self.aged and s not in self.preempt]
        del fitting[max(0, self._left) :]
        count = len(fitting)
        if self._groups.decoding or self.chunks:
            count = self._count(fitting)
        del fitting[count:]
        for sequence in fitting:
            self._work.add(sequence.computed, 1)
        self._left -= count
        return [(sequence, 1) for sequence in fitting]

    def evictable(self) -> list[Sequence]:
        """Best-effort ones who run and have not given way yet, the first let in first."""
        if self._evictable is None:
            spare = {*self._groups.spare_decoding, *self._groups.spare_prompts} - {self.aged}
            self._evictable = [each for each in self._view.running if each in spare]
        return self._evictable

    def _has(self, sequence: Sequence) -> bool:
        return sequence is self.aged and any(one is sequence for one, _ in self.chunks)

    def _count(self, sequences: list[Sequence]) -> int:
        """How many of them can decode within the time."""
        past, sums = self._work.past_tokens, [0]
        for sequence in sequences:
            sums.append(sums[-1] + sequence.computed)
        low, high = 0, len(sequences)
        while low < high:
            middle = (low + high + 1) // 2
            work = IterationWork(
                tokens=self._work.tokens + middle,
                requests=self._work.requests + middle,
                past_tokens=past + sums[middle],
                prefill_pairs=self._work.prefill_pairs,
            )
            if iteration_s(work, model=self._model) <= self._limit_s:
                low = middle
            else:
                high = middle - 1
        return low

    def _has_room(self, sequence: Sequence, may_evict: bool, kept_blocks: int) -> bool:
        blocks, free, room = self._view.limits.blocks_for(sequence.known), self._free, self._room
        if blocks <= free - kept_blocks and room >= 1:
            return True
        if not may_evict:
            return False
        spare = self.evictable()
        held = sum([each.blocks for each in spare])
        return blocks <= free + held and room + len(spare) >= 1

    def _let_in(self, sequence: Sequence) -> None:
        blocks = self._view.limits.blocks_for(sequence.known)
        while blocks > self._free or self._room < 1:
            victim = self.evictable().pop()
            self.preempt.append(victim)
            self._free += victim.blocks
            self._room += 1
        self._free -= blocks
        self._room -= 1
