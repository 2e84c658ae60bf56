"""What must be settled before vLLM is imported or started: its environment and its ports."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

_FIXED = {
    # One thread per engine core: several cores share a machine, and idle OpenMP threads spin.
    "OMP_NUM_THREADS": "1",
    # vLLM's n-gram code runs 100 times slower with numba's default thread count.
    "NUMBA_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # Models are folders; a hub is never asked.
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "NIXL_LOG_LEVEL": "WARN",
}


def prepare_environment() -> None:
    """Sets what vLLM reads when it is imported. What the operator has set stays."""
    for name, value in _FIXED.items():
        os.environ.setdefault(name, value)


@contextmanager
def start_method_kept() -> Iterator[None]:
    """Undoes vLLM's CPU platform, which sets the start method to spawn whatever was asked."""
    name = "VLLM_WORKER_MULTIPROC_METHOD"
    wanted = os.environ.get(name)
    yield
    if wanted is not None:
        os.environ[name] = wanted


def use_one_process_for_core_and_worker() -> None:
    """Lets a CPU engine run its worker inside the engine core: two processes instead of three."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


@contextmanager
def side_channel(host: str, port: int) -> Iterator[int]:
    """Names the port where the next engine serves its NIXL metadata; 0 is a free one.

    The port stays bound, but not listening, while the engine starts: the kernel then gives it to
    nobody else, and the engine's own listener (SO_REUSEADDR, like ours) may still take it. An
    engine that cannot bind it would hang at its start.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((host, port))
        bound: int = reserved.getsockname()[1]
        os.environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] = host
        os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"] = str(bound)
        yield bound


@contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """Sets a variable of the environment for the processes that start meanwhile."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
