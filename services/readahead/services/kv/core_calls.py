"""What the KV connectors share: the utility calls that `VllmEngine` makes, and process matters.

Utility calls run in the engine core between two steps, in order with submissions and aborts.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from vllm.v1.engine.core import EngineCore

from readahead.services.lineage import die_with_parent

Workers = Callable[..., list[Any]]
"""Runs a function in each worker process, and waits: vLLM's `collective_rpc`."""


class Handovers(Protocol):
    """The scheduler side of a connector, as far as the utility calls need it."""

    def books(self, workers: Workers) -> Mapping[str, int]:
        """`handovers_held`, `transfers_total` and `transfer_bytes_total`, and what else it has."""

    def renew(self, leg_ids: Iterable[str], workers: Workers) -> list[str]:
        """Extends leases. Returns the ids that are not held."""

    def release(self, leg_ids: Iterable[str], workers: Workers) -> None:
        """Frees KV. Ids that are not held are ignored."""

    def release_all(self, workers: Workers) -> None:
        """Frees the KV of every handover."""


def leg_id(engine_request_id: str) -> str:
    """The id a leg was submitted under; vLLM appends "-<8 hex digits>" to it."""
    return engine_request_id.rsplit("-", 1)[0]


def die_with_front_end() -> None:
    """Ends this engine core when its front end is gone.

    vLLM stops an engine core by message or signal from its front end; one whose front end was
    killed outright would go on for ever, with its memory.
    """
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        die_with_parent(parent.pid)


def allow_amx() -> None:
    """Asks the kernel for leave to use AMX, where the CPU has it.

    vLLM's bfloat16 attention uses it, and leaves it to chance that some product before it has
    asked: without the warm-up that an explicit KV size skips, the first long prompt dies of SIGILL.
    """
    torch.cpu._init_amx()


def handovers(core: Any) -> Handovers:
    """The connector's scheduler side."""
    side: Handovers = core.scheduler.connector.connector_scheduler
    return side


def _inspect(core: Any) -> dict[str, int]:
    running, waiting = core.scheduler.get_request_counts()
    pool = core.scheduler.kv_cache_manager.block_pool
    return {
        "running": running,
        "waiting": waiting,
        "kv_blocks_free": pool.get_num_free_blocks(),
        **handovers(core).books(core.model_executor.collective_rpc),
    }


def _renew(core: Any, leg_ids: list[str]) -> list[str]:
    return handovers(core).renew(leg_ids, core.model_executor.collective_rpc)


def _release(core: Any, leg_ids: list[str]) -> None:
    handovers(core).release(leg_ids, core.model_executor.collective_rpc)


def _release_all(core: Any) -> None:
    handovers(core).release_all(core.model_executor.collective_rpc)


EngineCore.readahead_inspect = _inspect
EngineCore.readahead_renew = _renew
EngineCore.readahead_release = _release
EngineCore.readahead_release_all = _release_all
