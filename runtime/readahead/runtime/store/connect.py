"""Which store a URL means."""

from __future__ import annotations

from readahead.runtime.clock import monotonic_s
from readahead.runtime.store.memory import MemoryStore
from readahead.runtime.store.store import Store


def connect(url: str) -> Store:
    """The store at a URL; empty: this process's memory. Nothing is dialled before the first call.

    Raises:
        ValueError: not a Redis URL.
    """
    if not url:
        return MemoryStore(monotonic_s)
    from readahead.runtime.store.redis import RedisStore  # a router on its own needs no Redis

    return RedisStore.connect(url)
