"""A cluster of emulated workers, each process started by its own command, as a chart does it."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis_process import RedisProcess, redis_process
from up_process import WorkerAddress, http_call
from waiting import unused_ports, wait_until

READY_S_MAX = 120.0
STOP_S_MAX = 20.0
LEASE_S = 10
"""Of a worker: longer than a test freezes one."""


@dataclass(slots=True)
class CliCluster:
    """One router and some workers over Redis. A test may kill and start workers."""

    model: Path
    folder: Path
    redis: RedisProcess
    http: str
    grpc: str
    workers: dict[str, WorkerAddress] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_worker(self, name: str, role: str) -> None:
        """Returns at once; on the old port if there was one of that name."""
        if name not in self.workers:
            [port] = unused_ports(1)
            self.workers[name] = WorkerAddress(
                name=name, role=role, grpc=f"127.0.0.1:{port}", metrics=""
            )
        port_text = self.workers[name].grpc.rpartition(":")[2]
        self._start(
            name,
            ["worker", "--role", role, "--model", str(self.model), "--port", port_text],
            {
                "worker_id": name,
                "engine.kind": "emulated",
                "engine.model_name": "tiny",
                "membership.redis_url": self.redis.url,
                "membership.lease_s": f"{LEASE_S}",
            },
        )

    def start_router(self, settings: Mapping[str, str]) -> None:
        """Returns at once."""
        own = {
            "model.path": str(self.model),
            "model.name": "tiny",
            "doors.http_port": self.http.rpartition(":")[2],
            "doors.grpc_port": self.grpc.rpartition(":")[2],
            "membership.redis_url": self.redis.url,
        }
        self._start("router", ["router"], {**own, **settings})

    def kill(self, name: str) -> None:
        """As the out-of-memory killer does it."""
        self.processes[name].kill()
        self.processes[name].wait()

    def freeze(self, name: str) -> None:
        """It keeps its connections and does nothing from here on."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def living(self) -> list[WorkerAddress]:
        """Workers whose process runs."""
        return [each for name, each in self.workers.items() if self.processes[name].poll() is None]

    def wait_joined(self, role: str, count: int) -> None:
        """Returns once the router can use so many workers of a role, by its own metrics."""
        wanted = f'readahead_router_workers{{role="{role}"}} {float(count)}'

        def is_so() -> bool:
            ended = [name for name, each in self.processes.items() if each.poll() is not None]
            assert not ended, "\n".join([f"{ended} ended", *map(self._log, ended)])
            try:
                return wanted in http_call(self.http, "GET", "/metrics")[1]
            except (OSError, http.client.HTTPException):
                return False

        wait_until(is_so, READY_S_MAX, what=wanted)

    def stop(self) -> None:
        """Ends every process; those that do not go are killed."""
        running = [each for each in self.processes.values() if each.poll() is None]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in running:
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, arguments: list[str], settings: Mapping[str, str]) -> None:
        overrides = [
            word for key, value in settings.items() for word in ("--set", f"{key}={value}")
        ]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "readahead.cli.main", *arguments, *overrides],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            )

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")


@contextmanager
def cli_cluster(
    model: Path, folder: Path, *, decode: int, router: Mapping[str, str]
) -> Iterator[CliCluster]:
    """Ready: `prefill-0` and `decode-0` … have joined. Nothing of it lives at the exit."""
    with redis_process() as redis:
        http_port, grpc_port = unused_ports(2)
        cluster = CliCluster(
            model=model,
            folder=folder,
            redis=redis,
            http=f"127.0.0.1:{http_port}",
            grpc=f"127.0.0.1:{grpc_port}",
        )
        try:
            cluster.start_router(router)
            cluster.start_worker("prefill-0", "prefill")
            for index in range(decode):
                cluster.start_worker(f"decode-{index}", "decode")
            cluster.wait_joined("prefill", 1)
            cluster.wait_joined("decode", decode)
            yield cluster
        finally:
            cluster.stop()
