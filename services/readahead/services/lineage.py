"""Ties a process's life to its parent's."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def die_with_parent(parent_pid: int) -> None:
    """Has the kernel kill this process when `parent_pid`, which started it, dies.

    The kernel's parent is a thread: the one that started this process must live as long as its
    process does.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the call
        os.kill(os.getpid(), signal.SIGKILL)


def tie_forks() -> None:
    """Has every later fork of this process, and of its forks, die with the one that forked it."""
    forker = os.getpid()

    def note() -> None:
        nonlocal forker
        forker = os.getpid()

    os.register_at_fork(before=note, after_in_child=lambda: die_with_parent(forker))


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent dies, to wait for them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
