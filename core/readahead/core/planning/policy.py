"""What an engine's iteration holds, and who decides it."""

from __future__ import annotations

from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from readahead.core.latency.iteration import IterationWork, LatencyModel
from readahead.core.planning.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine cannot exceed; constant while it lives."""

    kv_blocks: int
    block_tokens: int
    requests_max: int
    batch_tokens_max: int
    latency: LatencyModel | None = None
    """The scheduler's belief of iteration times. The engine's true ones may differ."""

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold the KV of so many tokens."""
        return -(-tokens // self.block_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoom:
    """Host memory in which an engine can keep the KV of parked sequences."""

    blocks_free: int
    """Blocks that new copies can have."""
    block_bytes: int
    blocks_coming: int = 0
    """Device blocks that are given up already, and free once the iteration under way is over."""


class Park(NamedTuple):
    """A running sequence that gives up its device blocks, and is in no queue until it resumes."""

    sequence: Sequence
    is_copied: bool
    """Its KV is kept in host memory; else it is computed again."""


class Copies(NamedTuple):
    """KV that is to be copied between device and host from now on, while others run."""

    out: tuple[Sequence, ...]
    """Of those who are parked; each holds its device blocks until its copy is made."""
    back: tuple[Sequence, ...]
    """Of those who resume; each has its device blocks already."""
    off: tuple[Sequence, ...]
    """Copies out that are not to go on: who was parked runs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """What a batch policy sees. It changes nothing here: the Batch carries its choice out.

    The lists are the Batch's own, so they are true only during the call.
    """

    limits: EngineLimits
    blocks_free: int
    running: Ordered[Sequence]
    """In order of admission. They have blocks."""
    waiting: Ordered[Sequence]
    """In order of arrival; preempted ones first. They have no blocks."""
    pulling: int
    """Sequences that wait for their KV; they count against `requests_max`."""
    parked: Ordered[Sequence] = ()
    """Those that a choice has parked, and that can resume. They have no blocks."""
    host: HostRoom | None = None
    """None where the engine cannot park."""

    @property
    def room(self) -> int:
        """Requests that may still be let in."""
        return self.limits.requests_max - len(self.running) - self.pulling


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy wants of the next iteration, in order of preference.

    The Batch goes through `entries` in order and takes each for as many tokens as asked, if its
    blocks can be had; where they cannot, it preempts from `victims`, in order, never one that
    this iteration holds already. What does not fit is left out.

    `victims` give way to running sequences only, and once one had to, nothing that waits is let
    in: it would take the blocks that were just freed for others. One that waits needs the blocks
    of all its known tokens at once. Where it cannot have them, those behind it are not let in
    either, unless `may_pass`.
    """

    entries: Ordered[tuple[Sequence, int]]
    """Running and waiting sequences, each with the tokens to compute (1..missing). The number
    says nothing where a waiting one's KV is to be pulled."""
    victims: Ordered[Sequence] = ()
    """Running sequences that may lose their KV, first the one to lose first."""
    preempt: Ordered[Sequence] = ()
    """Running sequences that lose their KV now."""
    park: Ordered[Park] = ()
    """Running sequences that are parked now. Only where the view has a `host`."""
    resume: Ordered[Sequence] = ()
    """Parked sequences that are let in again, before all others. Their copies are loaded into
    blocks that are free now; one without a copy joins those that wait, and one whose copy is still
    being made runs on."""
    holds_for: int = 1 << 30
    """For how many iterations the same choice would be made if nothing but decoding happened:
    no arrival, end, pull, preemption. 1: ask again after each."""
    chunks_hold: bool = False
    """`holds_for` is also true while a prompt that its chunk does not finish is computed on: each
    next chunk would be as long, until what is left is no longer than one."""
    may_pass: bool = False
    """Whether one that waits may be let in before another whose blocks are not free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One iteration, with its blocks taken."""

    entries: tuple[tuple[Sequence, int], ...]
    pulls: tuple[Sequence, ...]
    """Those whose blocks are there and whose KV is to be pulled now."""
    work: IterationWork
    repeats_max: int = 1
    """The plan may be carried out so many times in a row, each entry as many further tokens
    each time: the choice holds and the blocks are there. 1 where a prompt ends with it, or where
    somebody was moved, pulled, preempted or left out, or let in for more than the first chunk of
    many."""
    copies: Copies | None = None
    """Where somebody is parked or resumes."""


class BatchPolicy(Protocol):
    """Chooses batches. Pure: state, view and `now` in, a choice out."""

    @property
    def name(self) -> str:
        """As in --policy."""
        ...

    def choose(self, view: EngineView, now: float) -> Choice:
        """The next iteration's choice."""
        ...
