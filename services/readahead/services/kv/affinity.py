"""Which processors an engine may use, against a library that takes them away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ALL_PROCESSORS = "READAHEAD_ALL_PROCESSORS"
"""Variable of the environment: "1" lets engines use every processor."""
_TASKS = Path("/proc/self/task")


def for_engines(allowed: set[int], *, takes_all: bool) -> set[int]:
    """The processors that engines compute on: all but the first, which is left to whoever passes
    tokens on.

    Where engines took that too, routers and readers counted a reader's waits 23 to 31 ms apart at
    the median, instead of 4 to 11.
    """
    return allowed if takes_all or len(allowed) < 2 else allowed - {min(allowed)}


@contextmanager
def affinity_kept() -> Iterator[None]:
    """Gives the calling thread, and all that start meanwhile, the processors for engines.

    vLLM's NIXL connector on CPU binds the thread that makes it to the last core of each NUMA node,
    to keep transfers off the cores that compute. In an engine core whose worker is inside it that
    is the thread which computes; and every engine on a machine gets the same core.
    """
    takes_all = os.environ.get(ALL_PROCESSORS) == "1"
    allowed = for_engines(os.sched_getaffinity(0), takes_all=takes_all)
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
