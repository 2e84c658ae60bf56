"""Seats and KV blocks that are kept for legs on their way here from another worker."""

from __future__ import annotations

from readahead.core.errors import ReadaheadError, Reason
from readahead.runtime.clock import monotonic_s
from readahead.services.engine.engine import Engine, LegKey

RESERVED_S_MAX = 10.0
"""How long room is kept; a router gives a move no longer."""


class Reservations:
    """What is kept. The engine knows nothing of it: new legs are refused for its sake."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: dict[LegKey, tuple[float, int]] = {}
        """When it ends, seconds on the monotonic clock, and its blocks."""

    def __len__(self) -> int:
        if self._held:
            now = monotonic_s()
            for key in [key for key, (ends_at, _) in self._held.items() if ends_at <= now]:
                del self._held[key]
        return len(self._held)

    def __contains__(self, key: LegKey) -> bool:
        return key in self._held

    def keep(self, key: LegKey, *, context_tokens: int) -> None:
        """Keeps room for a leg.

        Raises:
            ReadaheadError: OVERLOADED; the KV cache has no room for it.
        """
        self.end(key)
        blocks = -(-context_tokens // self._engine.description.block_tokens)
        kept = sum(each for _, each in self._held.values()) if len(self) else 0
        free = self._engine.load().kv_blocks_free - kept
        if blocks > free:
            raise ReadaheadError(
                Reason.OVERLOADED, f"{blocks} KV blocks are needed and {free} are free"
            )
        self._held[key] = monotonic_s() + RESERVED_S_MAX, blocks

    def end(self, key: LegKey) -> None:
        """The leg has come, or will not."""
        self._held.pop(key, None)
