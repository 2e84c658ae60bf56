"""Finds and ends whatever processes are left below this one."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
ROUNDS_MAX: Final = 20
"""A process that forks while it is killed needs another round; nothing forks that often."""


def adopt_orphans() -> None:
    """Makes orphaned descendants children of this process instead of init's.

    So an engine whose worker was killed can still be found and ended.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Every live process below this one, parents before children."""
    found: list[int] = []
    for child in _children(pid):
        found.append(child)
        found.extend(descendants(child))
    return found


def kill_descendants() -> list[int]:
    """Kills and reaps every process below this one; returns their ids."""
    killed: list[int] = []
    for _ in range(ROUNDS_MAX):
        left = descendants(os.getpid())
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed.extend(pid for pid in left if pid not in killed)
        for pid in left:
            with suppress(ChildProcessError):  # Not ours yet: its parent dies in this round.
                os.waitpid(pid, 0)
    return killed


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path("/proc", str(pid), "task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
