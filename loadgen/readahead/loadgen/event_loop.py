"""The event loop of a run of load."""

from __future__ import annotations

import asyncio
from typing import cast


def loop_factory() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it is installed, else asyncio's own; for `asyncio.Runner`.

    benchmarks/bench_load.py has what either costs per token.
    """
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return cast(asyncio.AbstractEventLoop, uvloop.new_event_loop())  # untyped where it is missing
