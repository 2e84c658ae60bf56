"""A child's end is noticed, described, and always possible."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from waiting import wait_until_async

from readahead.cli.up.child import Child, ChildDiedError, describe_exit

IGNORES_TERM = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('deaf', flush=True); time.sleep(600)"
)


async def _start(tmp_path: Path, code: str, *, pipes: bool = False) -> Child:
    argv = [sys.executable, "-c", code]
    return await Child.start("it", argv, log=tmp_path / "it.log", env=os.environ, pipes=pipes)


async def test_an_end_is_reported_with_the_last_lines(tmp_path: Path) -> None:
    """Name, exit code and log."""
    child = await _start(tmp_path, "print('one'); print('two'); raise SystemExit(3)")
    with pytest.raises(ChildDiedError, match="it ended with exit code 3") as died:
        await child.watch()
    assert died.value.last_lines == ["one", "two"]


async def test_a_deaf_child_is_killed_at_the_limit(tmp_path: Path) -> None:
    """SIGTERM is asked first; SIGKILL is not refused."""
    child = await _start(tmp_path, IGNORES_TERM, pipes=True)
    assert await child.stdout.readline() == b"deaf\n"
    await child.stop(limit_s=0.05)
    assert not child.is_running


async def test_a_childs_own_children_end_with_it(tmp_path: Path) -> None:
    """They are in its process group."""
    code = (
        "import subprocess, sys, time; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], stdout=2); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    child = await _start(tmp_path, code, pipes=True)
    grandchild = int(await child.stdout.readline())
    group = os.getpgid(grandchild)
    assert group == child.pid
    await child.stop(limit_s=5)
    await wait_until_async(lambda: not _is_alive(grandchild), 5)


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    ("code", "said"),
    [(0, "ended with exit code 0"), (-signal.SIGSEGV, "was killed by SIGSEGV")],
)
def test_exits_are_described(code: int, said: str) -> None:
    """In words, signals by name."""
    assert describe_exit(code) == said
