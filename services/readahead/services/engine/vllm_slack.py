"""Memory that a worker's front end and its engine core share: readers one way, plans the other.

The core looks at it in every iteration, so it must cost no system call there: a call that releases
the interpreter's lock gives it to vLLM's output thread, and the iteration waits. Each reader has a
slot of float64s behind a version that is odd while it is written; a ring names the slots that have
changed, and one generation word counts the names that were put there. What the planner decides is
a word of the slot that the core writes; another word counts those.

The memory is a memfd. It has no name that outlives its processes, however they end, and needs no
resource tracker; the core finds it as a file of the front end, which is on the same machine.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import NamedTuple, TypeVar

from readahead.core.promise import Verdict
from readahead.services.engine.engine import PlanReport
from readahead.services.engine.vllm_scheduler_names import POLICY_NAMES

BOARD_VARIABLE = "READAHEAD_SLACK_BOARD"
"""Environment of an engine core: where its board is. vLLM's additional_config would be the place,
but its hash names the folder of compiled graphs, which must outlive a start."""

_WORD_BYTES = 8
_GENERATION = 0
_JUDGED = 1
_REPORT = 2
_REPORT_WORDS = 30
_RING = _REPORT + _REPORT_WORDS
_RING_WORDS = 1024
_SLOTS = _RING + _RING_WORDS
_SLOT_WORDS = 6
_VERSION, _EPOCH, _PACE, _READ, _AT, _VERDICT = range(_SLOT_WORDS)
_NEWS_WORDS = _VERDICT
"""Of a slot, those that the front end writes; the verdict is the core's."""
_VERDICTS = (Verdict.NEW, Verdict.ACCEPTED, Verdict.BEST_EFFORT)
_CODES = {verdict: code for code, verdict in enumerate(_VERDICTS)}

_Key = TypeVar("_Key")


class Slot(NamedTuple):
    """One reader's place. A tuple, as news is: the core makes many within an iteration."""

    number: int
    epoch: int
    """Counts the readers of the place: one that ends late must not be taken for the next."""


class ReaderNews(NamedTuple):
    """What is known of a reader beyond what the engine sees itself."""

    slot: Slot
    pace_tok_s: float
    """How fast he reads; 0: no news."""
    tokens_read: int
    """Tokens of this leg's output that he has come to; negative: no news."""
    at_s: float
    """When that was so, seconds on the machine's monotonic clock."""


_COUNTS = tuple(field.name for field in fields(PlanReport) if field.name != "policy")
_FLOATS = frozenset({"planner_s", "last_planner_s"})
assert len(_COUNTS) < _REPORT_WORDS


def _size_bytes(slots: int) -> int:
    return (_SLOTS + slots * _SLOT_WORDS) * _WORD_BYTES


class SlackBoard:
    """The front end's side: makes the memory, hands out slots, writes news. One event loop."""

    def __init__(self, slots: int) -> None:
        self._file = os.memfd_create("readahead-slack")
        os.ftruncate(self._file, _size_bytes(slots))
        self._map = mmap.mmap(self._file, _size_bytes(slots))
        self._words = memoryview(self._map).cast("d")
        self._free = list(reversed(range(slots)))
        self._epochs = [0] * slots
        self._judged = 0.0
        self._told = [0.0] * slots

    @property
    def path(self) -> str:
        """Where processes of this machine find it while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def open_slot(self) -> Slot | None:
        """A place for a new reader; None where all are taken."""
        if not self._free:
            return None
        index = self._free.pop()
        return Slot(number=index, epoch=self._epochs[index])

    def close_slot(self, slot: Slot) -> None:
        """Gives a place back; the next reader there has another epoch. Idempotent."""
        if self._epochs[slot.number] == slot.epoch:
            self._epochs[slot.number] += 1
            self._free.append(slot.number)

    def write(self, news: ReaderNews) -> None:
        """Tells the core, which sees it in its next iteration. News of a closed slot is dropped."""
        index = news.slot.number
        if self._epochs[index] != news.slot.epoch or self._file < 0:
            return
        words, base = self._words, _SLOTS + index * _SLOT_WORDS
        version = words[base + _VERSION]
        words[base + _VERSION] = version + 1
        words[base + _EPOCH] = news.slot.epoch
        words[base + _PACE] = news.pace_tok_s
        words[base + _READ] = news.tokens_read
        words[base + _AT] = news.at_s
        words[base + _VERSION] = version + 2
        generation = int(words[_GENERATION])
        words[_RING + generation % _RING_WORDS] = index
        words[_GENERATION] = generation + 1

    def verdicts(self, slots: Mapping[_Key, Slot]) -> list[tuple[_Key, Verdict]]:
        """What the planner has decided since the last call about those who have these places."""
        if self._file < 0 or self._words[_JUDGED] == self._judged:
            return []
        self._judged = self._words[_JUDGED]
        found = []
        for key, slot in slots.items():
            word = self._words[_SLOTS + slot.number * _SLOT_WORDS + _VERDICT]
            epoch, code = divmod(int(word), len(_VERDICTS))
            if word != self._told[slot.number] and epoch == slot.epoch and code:
                self._told[slot.number] = word
                found.append((key, _VERDICTS[code]))
        return found

    def report(self) -> PlanReport:
        """What the core wrote last; fields may be of two neighbouring iterations."""
        first, *counts = self._words[_REPORT : _REPORT + 1 + len(_COUNTS)]
        numbers = {
            name: word if name in _FLOATS else int(word)
            for name, word in zip(_COUNTS, counts, strict=True)
        }
        return PlanReport(policy=POLICY_NAMES[int(first)], **numbers)  # type: ignore[arg-type]

    def close(self) -> None:
        """Lets go of the memory. A core that still runs keeps it alive. Idempotent."""
        if self._file < 0:
            return
        self._words.release()
        self._map.close()
        os.close(self._file)
        self._file = -1


class SlackView:
    """The core's side: sees what has changed, and writes its report."""

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDWR)
        try:
            size_bytes = os.fstat(file).st_size
            self._map = mmap.mmap(file, size_bytes)
        finally:
            os.close(file)
        self._words = memoryview(self._map).cast("d")
        self._slots = (size_bytes // _WORD_BYTES - _SLOTS) // _SLOT_WORDS
        self._generation = 0

    def changed(self) -> list[ReaderNews]:
        """News since the last call. A slot that is being written comes with the next."""
        generation = int(self._words[_GENERATION])
        if generation == self._generation:
            return []
        indexes: Iterable[int]
        if generation - self._generation > _RING_WORDS // 2:  # the rest may be overwritten by now
            indexes = range(self._slots)
        else:
            names = range(self._generation, generation)
            indexes = {int(self._words[_RING + name % _RING_WORDS]) for name in names}
        self._generation = generation
        found = [self._read(index) for index in indexes]
        return [news for news in found if news is not None]

    def judge(self, verdicts: Iterable[tuple[Slot, Verdict]]) -> None:
        """Writes what the planner has decided."""
        words = self._words
        for slot, verdict in verdicts:
            word = slot.epoch * len(_VERDICTS) + _CODES[verdict]
            words[_SLOTS + slot.number * _SLOT_WORDS + _VERDICT] = word
            words[_JUDGED] += 1

    def tell(self, report: Iterable[float]) -> None:
        """Writes the policy's index in POLICY_NAMES, then the other fields of a `PlanReport`."""
        words, at = self._words, _REPORT
        for value in report:
            words[at] = value
            at += 1

    def close(self) -> None:
        """Lets go of the memory."""
        self._words.release()
        self._map.close()

    def _read(self, index: int) -> ReaderNews | None:
        words, base = self._words, _SLOTS + index * _SLOT_WORDS
        version = words[base + _VERSION]
        if version % 2 or not version:
            return None  # its writer names it once it is done
        _, epoch, pace_tok_s, tokens_read, at_s = words[base : base + _NEWS_WORDS].tolist()
        if words[base + _VERSION] != version:
            return None
        return ReaderNews(Slot(index, int(epoch)), pace_tok_s, int(tokens_read), at_s)
