"""Copies of KV blocks in host memory: what a prompt leaves for another worker, what a parked
request comes back to.

One fixed arena of block-sized rows, whose pages the system gives on first use. Any thread may call.
"""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.clock import monotonic_s
from readahead.services.kv.memory import fresh_memory, runs_of

_GONE_MAX = 4096
"""Names of copies that were here: asking for one of them is answered at once."""


@dataclass(slots=True, kw_only=True)
class HostCopy:
    """A request's blocks."""

    slots: Sequence[int]
    """Rows of the arena, in the request's order."""
    expires_at_s: float | None
    """None: no lease; it stays until it is dropped."""
    readers: int = 0
    is_dropped: bool = False
    """Its rows are free once the last reader has left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Blocks that are still in the KV cache, where another transport may read them."""

    blocks: int
    fill: Callable[[Sequence[int]], None]
    """Copies them into these rows."""


class HostStore:
    """Bounded in bytes, and in time for copies under a lease."""

    def __init__(
        self,
        *,
        block_bytes: int,
        bytes_max: int,
        lease_s: float,
        now: Callable[[], float] = monotonic_s,
    ) -> None:
        self.capacity_blocks = bytes_max // block_bytes
        self.block_bytes = block_bytes
        arena = fresh_memory(self.capacity_blocks * block_bytes)
        self._view = memoryview(arena)[: self.capacity_blocks * block_bytes]
        rows = torch.frombuffer(arena, dtype=torch.uint8)[: len(self._view)]
        self.rows = rows.view(self.capacity_blocks, block_bytes)
        self._lease_s = lease_s
        self._now = now
        self._free = list(range(self.capacity_blocks))  # a heap: low rows first, so in runs
        self._copies: dict[str, HostCopy] = {}
        self._offers: dict[str, Offer] = {}
        self._taken: set[str] = set()
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._unreported: list[str] = []
        self._changed = threading.Condition()
        self._is_closed = False

    def save(
        self, key: str, blocks: int, fill: Callable[[Sequence[int]], None], *, is_leased: bool
    ) -> None:
        """Makes a copy: `fill` writes its rows, and after that others can read them.

        Raises:
            ReadaheadError: OVERLOADED; there is no room.
        """
        try:
            copy = self._filled(blocks, fill)
        except ReadaheadError:
            with self._changed:
                self._forget(key)
            raise
        with self._changed:
            self._keep(key, copy, is_leased=is_leased)

    def offer(self, key: str, offer: Offer) -> None:
        """Lets a copy be made when somebody asks for it, until the offer is withdrawn."""
        with self._changed:
            self._gone.pop(key, None)
            self._offers[key] = offer
            self._changed.notify_all()

    def withdraw(self, keys: Iterable[str]) -> None:
        """Ends offers and their copies. After that the blocks may become others'."""
        with self._changed:
            for key in keys:
                if self._offers.pop(key, None) is not None:
                    self._drop(key)
                    self._forget(key)

    def take_taken(self) -> set[str]:
        """Offers that a peer has dropped, having pulled them, since the last call."""
        with self._changed:
            taken, self._taken = self._taken, set()
            return taken

    @contextmanager
    def reading(self, key: str, *, wait_s: float = 0.0) -> Iterator[Sequence[int]]:
        """The copy's rows, which stay for as long as the block lasts.

        Args:
            key: the copy's name.
            wait_s: how long to wait for a copy that was never here: a request's end is told to
                the router a moment before the engine's next step makes the copy.

        Raises:
            ReadaheadError: KV_EXPIRED; it is not here. OVERLOADED; it is on offer and there is no
                room for it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: key in self._copies or key in self._offers or key in self._gone, wait_s
            )
            self._expire()
            offer = None if key in self._copies else self._offers.get(key)
        if offer is not None:
            self._take_up(key, offer)
        with self._changed:
            copy = self._copies.get(key)
            if copy is None:
                raise ReadaheadError(Reason.KV_EXPIRED, "The KV copy is not here any more.")
            copy.readers += 1
        try:
            yield copy.slots
        finally:
            with self._changed:
                self._leave(copy)

    def views(self, slots: Sequence[int]) -> list[memoryview]:
        """Bytes of rows, those of neighbours in one piece. Valid inside `reading` only."""
        size = self.block_bytes
        return [
            self._view[slots[begin] * size : (slots[end - 1] + 1) * size]
            for begin, end in runs_of(slots)
        ]

    def lease(self, keys: Iterable[str]) -> None:
        """Puts copies under a full lease from now."""
        with self._changed:
            for key in keys:
                if (copy := self._copies.get(key)) is not None:
                    copy.expires_at_s = self._lease_end()
            self._changed.notify_all()

    def renew(self, keys: Iterable[str]) -> list[str]:
        """Extends leases to at least two thirds of a full one. Returns keys that are not here."""
        with self._changed:
            self._expire()
            unknown = []
            end_s = self._now() + self._lease_s * 2 / 3
            for key in keys:
                if (copy := self._copies.get(key)) is None:
                    unknown.append(key)
                elif copy.expires_at_s is not None:
                    copy.expires_at_s = max(copy.expires_at_s, end_s)
            return unknown

    def drop(self, keys: Iterable[str]) -> None:
        """Frees copies. Unknown keys are remembered as gone."""
        with self._changed:
            for key in keys:
                if self._offers.pop(key, None) is not None:
                    self._taken.add(key)
                self._drop(key)
                self._forget(key)

    def reap(self) -> None:
        """Frees copies as their leases end; returns after `close`. For a thread of its own."""
        with self._changed:
            while not self._is_closed:
                self._changed.wait(self._expire())

    def close(self) -> None:
        """Ends `reap`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def take_gone(self) -> list[str]:
        """Keys that have left since the last call."""
        with self._changed:
            self._expire()
            gone, self._unreported = self._unreported, []
            return gone

    def keys(self) -> dict[str, int]:
        """Blocks of each copy that is here."""
        with self._changed:
            self._expire()
            return {key: len(copy.slots) for key, copy in self._copies.items()}

    @property
    def free_blocks(self) -> int:
        """Rows that a new copy can have."""
        with self._changed:
            return len(self._free)

    def _filled(self, blocks: int, fill: Callable[[Sequence[int]], None]) -> HostCopy:
        with self._changed:
            self._expire()
            if blocks > len(self._free):
                raise ReadaheadError(
                    Reason.OVERLOADED,
                    f"No host memory for {blocks} KV blocks: {len(self._free)} are free.",
                )
            slots = [heapq.heappop(self._free) for _ in range(blocks)]
        copy = HostCopy(slots=slots, expires_at_s=None)
        try:
            fill(slots)
        except BaseException:
            with self._changed:
                self._give_back(copy)
            raise
        return copy

    def _take_up(self, key: str, offer: Offer) -> None:
        copy = self._filled(offer.blocks, offer.fill)
        with self._changed:
            if self._offers.get(key) is offer:
                self._keep(key, copy, is_leased=True)
            else:  # withdrawn meanwhile: the blocks may have been others' while they were copied
                self._give_back(copy)

    # Below: with the lock held.

    def _keep(self, key: str, copy: HostCopy, *, is_leased: bool) -> None:
        self._drop(key)
        self._gone.pop(key, None)
        copy.expires_at_s = self._lease_end() if is_leased else None
        self._copies[key] = copy
        self._changed.notify_all()

    def _lease_end(self) -> float:
        self._changed.notify_all()
        return self._now() + self._lease_s

    def _expire(self) -> float | None:
        now, next_s = self._now(), None
        for key, copy in list(self._copies.items()):
            if copy.expires_at_s is None or copy.readers:
                continue
            left_s = copy.expires_at_s - now
            if left_s <= 0:
                self._drop(key)
            elif next_s is None or left_s < next_s:
                next_s = left_s
        return next_s

    def _drop(self, key: str) -> None:
        copy = self._copies.pop(key, None)
        if copy is None:
            return
        copy.is_dropped = True
        if not copy.readers:
            self._give_back(copy)
        self._forget(key)
        self._unreported.append(key)

    def _forget(self, key: str) -> None:
        self._gone[key] = None
        while len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)
        self._changed.notify_all()

    def _leave(self, copy: HostCopy) -> None:
        copy.readers -= 1
        if copy.is_dropped and not copy.readers:
            self._give_back(copy)
        self._changed.notify_all()

    def _give_back(self, copy: HostCopy) -> None:
        for slot in copy.slots:
            heapq.heappush(self._free, slot)
