"""`readahead up` as a user runs it: a process, its output, its addresses and what it started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil
from waiting import wait_until

READY_S_MAX = 180.0
"""Three engines on two busy cores."""
STOP_S_MAX = 30.0
READY_LINE = "Ctrl-C stops everything."


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAddress:
    """Where one worker listens."""

    name: str
    role: str
    grpc: str
    """host:port."""
    metrics: str
    """host:port."""


class UpProcess:
    """One running `readahead up`."""

    def __init__(self, arguments: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cache = folder / "cache"
        self._output = folder / "output.txt"
        command = [sys.executable, "-m", "readahead.cli.main", "up", *arguments]
        inherited = {name: value for name, value in os.environ.items() if "READAHEAD_" not in name}
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, "--http-port", "0", "--grpc-port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=inherited | {"READAHEAD_CACHE": str(self.cache)} | dict(environ),
            )
        self._seen: dict[int, psutil.Process] = {}
        self._summary: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def run_folder(self) -> Path:
        """Where its processes log."""
        [folder] = (self.cache / "run").iterdir()
        return folder

    @property
    def http(self) -> str:
        """host:port of the OpenAI-compatible door."""
        return str(self._summary["http"])

    @property
    def grpc(self) -> str:
        """host:port of the gRPC door."""
        return str(self._summary["grpc"])

    @property
    def redis_url(self) -> str:
        """redis://…"""
        return str(self._summary["redis"])

    @property
    def model(self) -> str:
        """Name that callers use."""
        return str(self._summary["model"])

    @property
    def workers(self) -> list[WorkerAddress]:
        """Prefill workers first."""
        return [WorkerAddress(**worker) for worker in self._summary["workers"]]

    def wait_ready(self, limit_s: float = READY_S_MAX) -> Self:
        """Returns once it says so; fails the test with its output if it ends instead."""

        def is_ready() -> bool:
            self.processes()
            assert self._process.poll() is None, f"ended early:\n{self.output}{self.logs()}"
            return READY_LINE in self.output

        wait_until(is_ready, limit_s, what="readahead up is ready")
        self._summary = json.loads((self.run_folder / "cluster.json").read_text())
        return self

    def processes(self) -> list[psutil.Process]:
        """Everything alive below the supervisor now; remembered for `left`."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen |= {process.pid: process for process in found}
        return found

    def child(self, name: str) -> psutil.Process:
        """The process that writes the log of this name."""
        log = str(self.run_folder / f"{name}.log")
        [found] = [process for process in self.processes() if _stderr(process) == log][:1]
        return found

    def left(self) -> list[psutil.Process]:
        """Processes that were seen below the supervisor and still live."""
        return [process for process in self._seen.values() if _is_alive(process)]

    def signal(self, number: signal.Signals) -> None:
        """Sends it to the supervisor alone."""
        self.processes()
        self._process.send_signal(number)

    def wait(self, limit_s: float = STOP_S_MAX) -> int:
        """Exit code of the supervisor."""
        return self._process.wait(timeout=limit_s)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body from the HTTP door."""
        return http_call(self.http, "GET", path)

    def complete(self, prompt: str, **body: object) -> str:
        """Text of one completion by the HTTP door."""
        sent = {"model": self.model, "prompt": prompt, "temperature": 0, "max_tokens": 8} | body
        status, answer = http_call(self.http, "POST", "/v1/completions", sent)
        assert status == 200, answer
        return str(json.loads(answer)["choices"][0]["text"])

    def logs(self, lines_max: int = 40) -> str:
        """The ends of all logs, for the message of a failing test."""
        parts = []
        for log in sorted(self.cache.glob("run/*/*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            parts.append("\n".join([f"--- {log.name}", *lines[-lines_max:]]))
        return "\n".join(parts)

    def kill_all(self) -> None:
        """Ends whatever a failed test has left."""
        self.processes()
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for process in self.left():
            process.kill()


@contextmanager
def up_process(
    folder: Path, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[UpProcess]:
    """A started `readahead up`, not yet ready; nothing of it lives at the exit."""
    process = UpProcess(arguments, folder, environ or {})
    try:
        yield process
    finally:
        process.kill_all()


def http_call(
    address: str, method: str, path: str, body: Mapping[str, object] | None = None
) -> tuple[int, str]:
    """Status and body of one call."""
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def _stderr(process: psutil.Process) -> str:
    try:
        return str(Path(f"/proc/{process.pid}/fd/2").readlink())
    except OSError:
        return ""


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
