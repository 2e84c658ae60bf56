"""Starts many workers fast: imports vLLM once, then forks a worker per line of its input.

`python -m readahead.services.zygote` reads one JSON object per line from stdin:

    {"name": "decode-0", "config": {…WorkerConfig…}, "log": "path"}

and writes one per event to stdout:

    {"event": "imported", "s": 5.6}                           vLLM is loaded; once, at most
    {"event": "forked", "name": "decode-0", "pid": 123}
    {"event": "refused", "name": "decode-0", "error": "…"}    the line or its settings are wrong
    {"event": "exited", "name": "decode-0", "pid": 123, "status": 0}      negative: by that signal

SIGTERM, or the end of stdin, ends it: the workers get SIGTERM and are waited for, for as long as
they may drain. When the zygote dies the kernel kills its workers, and with them their engines.
It is for laptops and tests: a deployment starts one process per worker.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from readahead.runtime.clock import monotonic_s
from readahead.services.config import WorkerConfig
from readahead.services.lineage import adopt_orphans, die_with_parent, tie_forks

_STOP_MARGIN_S = 15.0
"""What a worker gets beyond its drain: an engine core takes up to 5 s to end."""

_READ_BYTES = 1 << 16

_VLLM_MODULES = (
    "readahead.services.engine.vllm",
    "readahead.services.kv.nixl",
    # What vLLM imports only when an engine starts.
    "vllm.renderers.hf",
    "vllm.transformers_utils.chat_templates.registry",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
)


@dataclass(slots=True)
class Zygote:
    """The workers it forked, and what it was told."""

    workers: dict[int, str] = field(default_factory=dict)
    """Name by process id."""
    drain_s_max: float = 0.0
    """The longest any worker may drain."""
    stop_by: float | None = None
    """When what still lives is killed; None until told to stop."""
    has_imported: bool = False
    _unread: bytes = b""

    def run(self) -> None:
        """Serves until told to stop and every worker is gone."""
        with selectors.DefaultSelector() as selector, self._signals() as signals:
            selector.register(sys.stdin, selectors.EVENT_READ)
            selector.register(signals, selectors.EVENT_READ)
            while self.stop_by is None or self.workers:
                timeout_s = None if self.stop_by is None else self.stop_by - monotonic_s()
                if timeout_s is not None and timeout_s <= 0:
                    self._signal(signal.SIGKILL)
                    timeout_s = None
                for key, _ in selector.select(timeout_s):
                    if key.fileobj is signals:
                        self._on_signals(signals)
                    elif not self._on_input():
                        selector.unregister(sys.stdin)
                        self._stop()

    def _on_input(self) -> bool:
        """Reads what there is. False at the end."""
        data = os.read(sys.stdin.fileno(), _READ_BYTES)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if line.strip() and self.stop_by is None:
                self._on_line(line)
        return bool(data)

    def _on_line(self, line: bytes) -> None:
        name = ""
        try:
            order = json.loads(line)
            name, log = str(order["name"]), Path(order["log"])
            config = TypeAdapter(WorkerConfig).validate_python(order["config"])
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            _emit(event="refused", name=name, error=str(error) or repr(error))
            return
        if config.engine.kind == "vllm":
            self._import_vllm(config.engine.model_path)
        self.drain_s_max = max(self.drain_s_max, config.drain_s_max)
        parent = os.getpid()
        if (pid := os.fork()) == 0:
            _work(config, log=log, parent=parent)
        self.workers[pid] = name
        _emit(event="forked", name=name, pid=pid)

    def _import_vllm(self, model_path: str) -> None:
        started = monotonic_s()
        for name in _VLLM_MODULES:
            importlib.import_module(name)
        importlib.import_module("readahead.services.engine.vllm_setup").preload_model(model_path)
        importlib.import_module("readahead.services.worker.app")
        # Kept for the workers, each of which would read vLLM's sources else.
        internals = importlib.import_module("readahead.services.engine.vllm_internals")
        internals.complaint_about(internals.installed_folder())
        if not self.has_imported:
            self.has_imported = True
            # What lives now lives as long as any worker: the collector need not touch, and so
            # copy, its pages.
            gc.collect()
            gc.freeze()
            _emit(event="imported", s=round(monotonic_s() - started, 3))

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """SIGTERM and SIGCHLD as bytes on a socket, so that one `select` waits for everything."""
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)
            signal.set_wakeup_fd(writer.fileno())
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.signal(signal.SIGTERM, self._on_sigterm)
            yield reader
            signal.set_wakeup_fd(-1)

    def _on_sigterm(self, *_: object) -> None:
        if not self.workers:  # it may be importing vLLM, with nobody to wait for
            os._exit(0)

    def _on_signals(self, signals: socket.socket) -> None:
        received = signals.recv(_READ_BYTES)
        if signal.SIGTERM in received:
            self._stop()
        self._reap()

    def _reap(self) -> None:
        while self.workers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if name := self.workers.pop(pid, None):
                code = os.waitstatus_to_exitcode(status)
                _emit(event="exited", name=name, pid=pid, status=code)

    def _stop(self) -> None:
        if self.stop_by is None:
            self.stop_by = monotonic_s() + self.drain_s_max + _STOP_MARGIN_S
            self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.workers:
            os.kill(pid, number)


def _work(config: WorkerConfig, *, log: Path, parent: int) -> NoReturn:
    """The life of a forked worker. Never returns into the zygote's code."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent(parent)
        tie_forks()
        _redirect(log)
        # vLLM reads it: the engine core is forked from here too.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        app = importlib.import_module("readahead.services.worker.app")
        asyncio.run(app.serve(config))
        status = 0
    finally:
        if status:
            traceback.print_exc()
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _redirect(log: Path) -> None:
    """Output goes to the log; nothing comes in."""
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)


def _emit(**event: object) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Runs a zygote on this process's stdin and stdout."""
    # Ctrl-C in a terminal goes to the whole session: only the supervisor shall act on it.
    with suppress(PermissionError):
        os.setsid()
    adopt_orphans()  # the engine core of a worker that was killed
    Zygote().run()
    # Nothing is left to clean up, and unloading vLLM takes seconds.
    os._exit(0)


if __name__ == "__main__":
    main()
