"""Which processors an engine may use, against a library that takes them away."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NICENESS = 10
"""Of a thread that computes on a CPU."""
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


def let_others_pass() -> None:
    """Lets the calling thread, which computes, give way to whoever only passes tokens on.

    Engines that may use all of a laptop's processors leave none for the router, which then hears
    of tokens, and tells of them, tens of milliseconds late.
    """
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _threads() -> set[int]:
    return {int(entry.name) for entry in _TASKS.iterdir()}


def _allow(thread: int, processors: set[int]) -> None:
    try:
        os.sched_setaffinity(thread, processors)
    except ProcessLookupError:
        return  # It has ended since it was listed.
