"""Keeps NIXL's progress thread from spinning.

NIXL's Python binding asks for a delay of 0 in the thread that drives UCX, which makes its `poll`
return at once: one core per engine, burnt for as long as the engine lives. With a delay the thread
sleeps until a transport wakes it, or until the delay is over.
"""

from __future__ import annotations

import sys
from typing import Any

from vllm.distributed import nixl_utils

_DELAY_US = 10_000
"""The thread's longest sleep. Transports wake it; NIXL's source knows cases in which they do not,
and 10 ms then bounds the loss at about one engine step on a CPU, for 100 wake-ups a second."""


def let_progress_thread_sleep() -> None:
    """Takes effect for NIXL agents made in this process after the call. Idempotent."""
    bindings: Any = sys.modules[nixl_utils.NixlWrapper.__module__].nixlBind
    stock = bindings.nixlAgentConfig
    if stock.__name__ == "SleepyAgentConfig":
        return

    def set_delay(config: Any, delay_us: int) -> None:
        stock.pthrDelay.__set__(config, max(delay_us, _DELAY_US))

    delay = property(stock.pthrDelay.__get__, set_delay)
    bindings.nixlAgentConfig = type("SleepyAgentConfig", (stock,), {"pthrDelay": delay})
