"""One process of the cluster: started so that it cannot outlive the supervisor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from readahead.cli.up.run_directory import tail

PR_SET_PDEATHSIG: Final = 1
TAIL_LINES: Final = 12

_libc = ctypes.CDLL(None, use_errno=True)


class ChildDiedError(Exception):
    """A process of the cluster ended that should have gone on."""

    def __init__(self, name: str, how: str, log: Path) -> None:
        super().__init__(f"{name} {how}")
        self.name = name
        self.how = how
        self.log = log
        self.last_lines = tail(log, lines_max=TAIL_LINES)


class Child:
    """A process, its name and its log."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls, name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str], pipes: bool
    ) -> Child:
        """Starts a process in a session of its own, so that Ctrl-C reaches the supervisor only.

        Must run in the main thread: the kernel kills the process when the thread that started it
        ends. With `pipes` its stdin and stdout are pipes, else only its log is written.
        """
        supervisor_pid = os.getpid()

        def die_with_supervisor() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor_pid:
                os._exit(1)

        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipes else output,
                stderr=output,
                env=dict(env),
                start_new_session=True,
                preexec_fn=die_with_supervisor,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """Process id, and that of its session and process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False once its end is known."""
        return self._process.returncode is None

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """Only with `pipes`."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> asyncio.StreamReader:
        """Only with `pipes`."""
        assert self._process.stdout is not None
        return self._process.stdout

    async def watch(self) -> None:
        """Waits for its end, which is always a failure here.

        Raises:
            ChildDiedError: it has ended.
        """
        code = await self._process.wait()
        raise ChildDiedError(self.name, describe_exit(code), self.log)

    async def stop(self, *, limit_s: float) -> None:
        """Asks it to end; at the limit kills it and whatever it started in its session."""
        if self.is_running:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    await self._process.wait()
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        """Kills the process and its process group at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def describe_exit(code: int) -> str:
    """How a process ended, as a person would say it."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
