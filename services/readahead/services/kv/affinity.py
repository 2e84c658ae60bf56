"""Which processors an engine may use, against a library that takes them away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def affinity_kept() -> Iterator[None]:
    """Gives the calling thread, and all that start meanwhile, the processors it has now.

    vLLM's NIXL connector on CPU binds the thread that makes it to the last core of each NUMA node,
    to keep transfers off the cores that compute. In an engine core whose worker is inside it that
    is the thread which computes; and every engine on a machine gets the same core.
    """
    allowed = os.sched_getaffinity(0)
    before = _threads()
    yield
    for thread in _threads() - before:
        _allow(thread, allowed)
    os.sched_setaffinity(0, allowed)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()}


def _allow(thread: int, processors: set[int]) -> None:
    try:
        os.sched_setaffinity(thread, processors)
    except ProcessLookupError:
        return  # It has ended since it was listed.
