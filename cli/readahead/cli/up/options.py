"""What `readahead up` was asked for, checked before anything starts."""

from __future__ import annotations

import errno
import itertools
import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from readahead.services.engine.vllm_scheduler_names import make_engine_policy

PROCESSES_MAX: Final = 64
"""More workers than this on one machine is a typing error."""
PORT_MIN: Final = 15000
"""Below are the ports that people choose by hand."""
EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
REDIS_S_MAX: Final = 3.0


class UsageError(Exception):
    """The command cannot be carried out as given; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """A cluster on one machine."""

    prefill: int = 1
    decode: int = 2
    engine: str = "vllm"
    model: Path | None = None
    """Hugging Face folder. None: the tiny model, made on the spot."""
    model_name: str = ""
    kv: str = "nixl"
    policy: str = "vllm"
    """What decides each iteration of the engines: vLLM's own order, or a policy of ours."""
    redis: str = ""
    """redis://… Empty: a redis-server of our own, which keeps nothing."""
    http_port: int = 8000
    grpc_port: int = 50051
    """0 is a free port, here as above."""
    otlp: str = ""
    keep_logs: bool = False
    drain_s_max: float = 5.0
    iteration_logs: Path | None = None
    """Folder that gets a log of each worker's iterations. None: none is kept."""

    def check(self) -> None:
        """Looks at everything that can be known before the first process starts.

        Raises:
            UsageError: naming the option and the remedy.
        """
        for name in ("prefill", "decode"):
            count = getattr(self, name)
            if not 1 <= count <= PROCESSES_MAX:
                raise UsageError(f"--{name} must be in [1, {PROCESSES_MAX}], got {count}")
        if self.engine not in {"vllm", "emulated"}:
            raise UsageError(f"--engine must be vllm or emulated, got {self.engine!r}")
        if self.kv not in {"nixl", "grpc", "auto"}:
            raise UsageError(f"--kv must be nixl, grpc or auto, got {self.kv!r}")
        self._check_policy()
        if not 0 <= self.drain_s_max <= 3600:
            raise UsageError(f"--drain-s-max must be in [0, 3600], got {self.drain_s_max:g}")
        if self.iteration_logs is not None and not self.iteration_logs.is_dir():
            raise UsageError(f"--iteration-logs: there is no folder {self.iteration_logs}")
        self._check_redis()
        self._check_model()
        self._check_ports()

    def _check_policy(self) -> None:
        try:
            make_engine_policy(self.policy, {})
        except ValueError as error:
            raise UsageError(f"--policy: {error}") from error

    def _check_redis(self) -> None:
        if not self.redis:
            return
        address = urlsplit(self.redis)
        if address.scheme == "unix":
            return
        if address.scheme not in {"redis", "rediss"} or not address.hostname:
            raise UsageError(f"--redis must be a redis:// address, got {self.redis!r}")
        where = (address.hostname, address.port or 6379)
        try:
            socket.create_connection(where, timeout=REDIS_S_MAX).close()
        except OSError as error:
            raise UsageError(f"--redis: {where[0]}:{where[1]} does not answer: {error}") from error

    def _check_model(self) -> None:
        if self.model is None:
            return
        if not self.model.is_dir():
            raise UsageError(f"--model: there is no folder {self.model}")
        if not (self.model / "config.json").is_file():
            raise UsageError(
                f"--model: {self.model} has no config.json, so it is not a Hugging Face folder"
            )

    def _check_ports(self) -> None:
        for option, port in (("--http-port", self.http_port), ("--grpc-port", self.grpc_port)):
            if not 0 <= port <= 65535:
                raise UsageError(f"{option} must be in [0, 65535], got {port}")
            if port and not is_port_free(port):
                raise UsageError(
                    f"port {port} on 127.0.0.1 is in use: stop what listens there, or give "
                    f"another one with {option} (0 takes any free port)"
                )
        if self.http_port and self.http_port == self.grpc_port:
            raise UsageError(f"--http-port and --grpc-port are both {self.http_port}")


def is_port_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_ports(count: int) -> list[int]:
    """Loopback ports that are free now, all different.

    Outside the range from which the kernel serves outgoing connections: seconds pass before the
    processes listen, and one of those ports may be gone by then.
    """
    low = int(EPHEMERAL_RANGE.read_text().split()[0])
    candidates = list(range(PORT_MIN, low)) or list(range(1024, 65536))
    random.SystemRandom().shuffle(candidates)
    ports = list(itertools.islice(filter(is_port_free, candidates), count))
    if len(ports) < count:
        raise UsageError(f"{count} free ports are needed on 127.0.0.1, {len(ports)} were found")
    return ports
