"""Host memory beside a batch: the KV of those who are parked, and what is copied there and back.

A part of the Batch's state, through which it carries out what a policy wants moved. Whoever runs
the engine makes the copies and says when each is over. A copy out reserves its place at once and
holds the device's blocks until it is made; a copy back reserves blocks of the device first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from readahead.core.planning.policy import Choice, Copies, HostRoom, Park
from readahead.core.planning.sequence import Sequence

if TYPE_CHECKING:
    from readahead.core.planning.batch import Batch


@dataclass(slots=True)
class _Copy:
    """Of one sequence, from its park until it runs again."""

    tokens: int
    """Whose KV it is."""
    blocks: int
    """On the host."""
    device_blocks: int
    """That the sequence still has there: until the copy is made."""


@dataclass(slots=True, kw_only=True)
class HostMemory:
    """Who is parked, and where his KV is. One with no copy is computed again."""

    blocks: int
    block_bytes: int
    blocks_free: int = 0
    blocks_coming: int = 0
    """Of the device, still held by copies that are being made."""
    parked: list[Sequence] = field(default_factory=list)
    """In order of parking."""
    parks: int = 0
    refused: int = 0
    """Parks and resumes for which there was no room: all stays as it is, and who was to be parked
    sits the iteration out."""
    resumes: int = 0
    used_most: int = 0
    """Blocks that were taken at one time."""
    _copies: dict[Sequence, _Copy] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.blocks < 1 or self.block_bytes < 1:
            raise ValueError(
                f"blocks and block_bytes must be at least 1, are {self.blocks} and "
                f"{self.block_bytes}"
            )
        self.blocks_free = self.blocks

    def room(self) -> HostRoom:
        """As a policy sees it."""
        return HostRoom(
            blocks_free=self.blocks_free,
            block_bytes=self.block_bytes,
            blocks_coming=self.blocks_coming,
        )

    def copy_bytes(self, sequence: Sequence) -> int:
        """Of a sequence's copy, made or being made or being loaded."""
        return self._copies[sequence].blocks * self.block_bytes

    def move(self, batch: Batch, choice: Choice, now: float) -> Copies:
        """Parks and resumes whom the choice names, where there is room. Returns what is to be
        copied from now on, and which copies not to go on with."""
        running = set(batch.running)
        resumes = [each for each in dict.fromkeys(choice.resume) if each in self.parked]
        parks = [park for park in choice.park if park.sequence in running]
        out = [park.sequence for park in parks if self._park(batch, park, now)]
        back: list[Sequence] = []
        off: list[Sequence] = []
        for sequence in resumes:
            is_held = self._is_held(sequence)
            if not self._resume(batch, sequence, now):
                self.refused += 1
            elif is_held:
                off.append(sequence)
            elif sequence.is_copied:
                back.append(sequence)
        return Copies(out=tuple(out), back=tuple(back), off=tuple(off))

    def copied(self, sequence: Sequence) -> int:
        """The copy of one who is parked is made. Returns the device's blocks that come free."""
        copy = self._copies[sequence]
        blocks, copy.device_blocks = copy.device_blocks, 0
        self.blocks_coming -= blocks
        return blocks

    def loaded(self, sequence: Sequence) -> None:
        """The copy is back on the device, where it has blocks already."""
        copy = self._copies.pop(sequence)
        self.blocks_free += copy.blocks
        sequence.computed, sequence.is_copied = copy.tokens, False

    def forget(self, sequence: Sequence) -> int:
        """One has ended, parked or on his way back or neither. Returns the device's blocks that
        his copy still held."""
        if sequence in self.parked:
            self.parked.remove(sequence)
        copy = self._copies.pop(sequence, None)
        if copy is None:
            return 0
        self.blocks_free += copy.blocks
        self.blocks_coming -= copy.device_blocks
        return copy.device_blocks

    def check(self) -> None:
        """Asserts that each block is free or of one copy, and that who is parked has none there."""
        copies = self._copies.values()
        assert 0 <= self.blocks_free <= self.blocks, self.blocks_free
        assert self.blocks_free + sum(copy.blocks for copy in copies) == self.blocks
        assert self.blocks_coming == sum(copy.device_blocks for copy in copies)
        assert all(s.blocks == s.computed == 0 for s in self.parked)
        assert all(s.is_copied == (s in self._copies) for s in self.parked)

    def _park(self, batch: Batch, park: Park, now: float) -> bool:
        """Whether a copy is to be made."""
        sequence, is_copied = park
        if not sequence.blocks:
            return False  # named twice
        blocks = batch.limits.blocks_for(sequence.computed)
        if is_copied and blocks > self.blocks_free:
            self.refused += 1
            return False
        batch.running.remove(sequence)
        if is_copied:
            self._copies[sequence] = _Copy(sequence.computed, blocks, sequence.blocks)
            self.blocks_free -= blocks
            self.used_most = max(self.used_most, self.blocks - self.blocks_free)
            self.blocks_coming += sequence.blocks
        else:
            batch.give(sequence.blocks)
        sequence.blocks = sequence.computed = 0
        sequence.is_copied, sequence.moved_at = is_copied, now
        self.parked.append(sequence)
        self.parks += 1
        return is_copied

    def _is_held(self, sequence: Sequence) -> bool:
        """Whether its copy is still being made."""
        copy = self._copies.get(sequence)
        return copy is not None and copy.device_blocks > 0

    def _resume(self, batch: Batch, sequence: Sequence, now: float) -> bool:
        """Whether there was room."""
        if not sequence.is_copied:
            batch.waiting.insert(0, sequence)
        elif len(batch.running) + len(batch.pulling) >= batch.limits.requests_max:
            return False
        elif self._is_held(sequence):  # it runs on in blocks that it has never left
            sequence.blocks = self.copied(sequence)
            self.loaded(sequence)
            batch.running.append(sequence)
        else:
            blocks = batch.limits.blocks_for(sequence.known)
            if not batch.take(blocks):
                return False
            sequence.blocks = blocks
            batch.pulling.append(sequence)
        self.parked.remove(sequence)
        sequence.moved_at = now
        self.resumes += 1
        return True
